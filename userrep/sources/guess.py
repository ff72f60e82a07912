"""Guesses of what the columns of a source mean, from their names, types and values."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from userrep.config import Partition
from userrep.config.values import part_of_name
from userrep.errors import in_line
from userrep.sources.partitions import days_late
from userrep.sources.read import DATE
from userrep.sources.text_numbers import numbers_of
from userrep.sources.times import times_of
from userrep.store.arrow import is_text


def _words(text: str) -> list[str]:
    """Split a vocabulary, best word first."""
    return text.split()


_USERS = _words(
    "user customer household member account client visitor shopper subscriber buyer listener reader viewer player"
    " patient person cust uid reviewer author anonymousid"
)
_ITEMS = _words(
    "item product sku article track song movie film book video asin isbn stock upc ean content listing podcast episode"
    " game recipe course hotel restaurant business offer postid"
)
_ITEMS_BY_NAME = _words("page url title")
_TIMES = _words("timestamp datetime time ts date at when day dt")
_TITLES = _words("title name text description product category genres genre department label")
_KEYS = {"id", "key", "code", "no", "nr", "num", "number", "uuid", "guid", "unique"}
_OTHER_TIMES = set(
    _words(
        "birth dob birthday expires expiry registered registration signup signed joined since updated modified ingested"
        " ingestion loaded processed received release published first last end ended deleted"
    )
)
_EVENT_IDS = set(_words("eventid eventuuid eventkey uuid guid rowid logid messageid recordid lineid orderlineid id"))
_EVENT_TYPES = set(_words("eventtype eventname event action actiontype type kind activity behavior behaviour verb"))
_WEIGHTS = set(_words("weight rating score stars quantity qty amount price value seconds duration plays count"))
_REGISTRATIONS = {"registered", "registration", "signup", "signed", "joined", "since"}
_MAX_KINDS = 64  # distinct values of an event type or an attribute; features keep no more
_FOLDER_DATE = re.compile(r"\d{4}-?\d\d-?\d\d")
_MAX_LATE_DAYS = 7  # from the day of an event to that of its partition
_SAMPLED = 100_000  # values of a text column that are parsed


class Guess(NamedTuple):
    """The column that a key most likely means, and other candidates. ``hint``: why there is none."""

    column: str | None
    others: tuple[str, ...] = ()
    hint: str = ""


def guess_events(rows: pa.Table) -> dict[str, Guess]:
    """Guess ``events.columns``: user_id, item_id, event_at, event_id, event_type and weight.

    An optional column is guessed only if its values also fit: unique ids, few types without nulls, weights of at least
    0 in a column of that name.
    """
    event_at = _guess_time(rows)
    user_id = _guess_id(rows, _USERS)
    item_id = _guess_id(rows, [*_ITEMS, *_ITEMS_BY_NAME], taken=[user_id.column])
    rest = [name for name in rows.column_names if name not in (user_id.column, item_id.column, event_at.column)]
    ids = [name for name in rest if _joined(name) in _EVENT_IDS and _is_unique(rows[name])]
    may_be_ids = [name for name in rest if _tokens(name)[-1:] == ["id"] and _is_unique(rows[name])]
    kinds = [name for name in rest if _joined(name) in _EVENT_TYPES and _is_kind(rows[name])]
    amounts = [name for name in rest if {_joined(name), *_tokens(name)} & _WEIGHTS and _is_weight(rows[name])]
    weights = sorted(amounts, key=lambda name: _joined(name) != "weight")
    has_weight = any(_joined(name) == "weight" for name in amounts)
    return {
        "user_id": user_id,
        "item_id": item_id,
        "event_at": event_at,
        # Another unique id, such as that of a session, may be unique only in the sample; equal ones would be dropped.
        "event_id": _first(ids) if ids else Guess(None, tuple(may_be_ids)),
        "event_type": _first(kinds),
        "weight": _first(weights) if has_weight else Guess(None, tuple(amounts)),
    }


def guess_items(rows: pa.Table) -> dict[str, Guess]:
    """Guess ``items.columns``: item_id and text."""
    item_id = _guess_id(rows, [*_ITEMS, "id"])
    texts = [name for name in rows.column_names if name != item_id.column and is_text(rows[name].type)]
    ranked = _ranked(texts, _TITLES)
    rest = [name for name in texts if name not in ranked]
    return {"item_id": item_id, "text": _first([*ranked, *rest] if ranked else [])}


def guess_users(rows: pa.Table) -> tuple[dict[str, Guess], list[str]]:
    """Guess ``users.columns``, user_id and registered_at, and the attributes: columns of few and repeated values."""
    user_id = _guess_id(rows, [*_USERS, "id"])
    times = [name for name in rows.column_names if name != user_id.column and _is_time(rows[name])]
    registered = [name for name in times if _REGISTRATIONS & {*_tokens(name)}]
    attributes = {
        part_of_name(name): name
        for name in rows.column_names
        if name not in (user_id.column, *times) and 2 <= _num_kinds(rows[name]) <= min(_MAX_KINDS, len(rows) / 5)
    }
    return {"user_id": user_id, "registered_at": _first(registered)}, list(attributes.values())


def guess_partition(rows: pa.Table, folders: Iterable[Mapping[str, str]], times: pa.ChunkedArray) -> Partition | None:
    """Guess ``events.partition``: a date in the names of all files' folders, and how late rows are.

    ``folders``: the columns in the path of each file. ``times``: those of the rows, as ``times_of`` returns them. None
    without such a column, or if rows are of a later day than it, or of more than a week before.
    """
    files = list(folders)
    for name in rows.column_names:
        if not all(_FOLDER_DATE.fullmatch(columns.get(name, "")) for columns in files):
            continue
        late = pc.min_max(days_late(times, rows[name])).as_py()
        if late["min"] is None or late["min"] < 0 or late["max"] > _MAX_LATE_DAYS:
            continue
        if late["max"] == 0:
            return Partition(column=name, holds="event_date")
        lateness = timedelta(days=max(3, 2 * late["max"]))  # the sample may not have the latest rows
        return Partition(column=name, holds="ingestion_date", max_lateness=lateness)
    return None


def _first(names: list[str]) -> Guess:
    return Guess(names[0], tuple(names[1:])) if names else Guess(None)


def _guess_id(rows: pa.Table, words: Iterable[str], taken: Iterable[str | None] = ()) -> Guess:
    candidates = [name for name in rows.column_names if name not in taken and _is_id(rows[name])]
    return _first(_ranked(candidates, list(words)))


def _guess_time(rows: pa.Table) -> Guess:
    candidates = [name for name in rows.column_names if _is_time(rows[name])]
    named = [name for name in rows.column_names if {*_tokens(name)} & {*_TIMES} and not _is_other_time(name)]
    epochs = [name for name in named if name not in candidates and not pa.types.is_nested(rows[name].type)]
    real = [name for name in epochs if _is_epoch(rows[name])]  # their day may also be a column, or a partition
    if epochs and all(_is_other_time(name) or (real and _has_only_dates(rows[name])) for name in candidates):
        hint = (
            f"{in_line((real or epochs)[0])} is not a time that Spark reads, such as 2024-05-01T12:00:00Z; convert it"
        )
        return Guess(None, tuple(candidates), hint)

    def rank(name: str) -> tuple[bool, bool, int]:
        tokens = _tokens(name)
        position = min((k for k, word in enumerate(_TIMES) if word in (*tokens, _joined(name))), default=len(_TIMES))
        return _is_other_time(name), pa.types.is_date(rows[name].type), position

    return _first(sorted(candidates, key=rank))


def _is_epoch(column: pa.ChunkedArray) -> bool:
    """Return whether most values are numbers, or texts of numbers, that are a time of 1990 to 2100 since 1970."""
    kind = column.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return False
    (median,) = pc.quantile(numbers_of(column.slice(0, _SAMPLED))).to_pylist()
    return median is not None and any(6.3e8 < median / unit < 4.1e9 for unit in (1, 1e3, 1e6, 1e9))


def _has_only_dates(column: pa.ChunkedArray) -> bool:
    if not is_text(column.type):
        return bool(pa.types.is_date(column.type))
    return bool(pc.all(pc.match_substring_regex(column.slice(0, _SAMPLED), DATE)).as_py())


def _is_other_time(name: str) -> bool:
    return bool(_OTHER_TIMES & {*_tokens(name)})


def _tokens(name: str) -> list[str]:
    """Split a name such as ``CustomerID`` or ``customer.id`` into lower-case words."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _joined(name: str) -> str:
    return "".join(_tokens(name))


def _ranked(names: list[str], words: list[str]) -> list[str]:
    """Return the names that contain one of the words, best first.

    A name may begin with further words only if it ends as that of a key: ``retail_customer_id``, but not ``user_age``
    or ``customer_zip_code``.
    """
    scores: dict[str, tuple[int, int]] = {}
    for name in names:
        tokens = _tokens(name)
        for k, word in enumerate(words):
            if word in tokens or _joined(name) in {word, *(f"{word}{key}" for key in _KEYS)}:
                num_more = len({*tokens} - _KEYS - {word}) if word in tokens else 0
                if num_more == 0 or (tokens[-2] == word and tokens[-1] in _KEYS):
                    scores.setdefault(name, (num_more, k))
    return sorted(scores, key=lambda name: scores[name])


def _is_id(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return bool(pc.all(pc.equal(pc.round(column), column)).as_py())
    return bool(is_text(kind) or pa.types.is_integer(kind))


def _is_time(column: pa.ChunkedArray) -> bool:
    """Return whether a column has times, or texts of which nine in ten are times."""
    if not is_text(column.type):
        return bool(pa.types.is_timestamp(column.type) or pa.types.is_date(column.type))
    texts = column.slice(0, _SAMPLED).drop_null()
    # Spark also reads a mere year as a time, but a column of years is probably not a column of times.
    dashed = texts.filter(pc.match_substring(texts, "-"))
    return len(texts) > 0 and len(times_of(dashed).drop_null()) >= 0.9 * len(texts)


def _is_unique(column: pa.ChunkedArray) -> bool:
    return not column.null_count and pc.count_distinct(column).as_py() == len(column)


def _is_kind(column: pa.ChunkedArray) -> bool:
    return 1 <= _num_kinds(column) <= _MAX_KINDS and not column.null_count


def _num_kinds(column: pa.ChunkedArray) -> int:
    """Return the number of distinct values, without null; 0 for a column that can have no kinds, such as numbers."""
    kind = column.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return 0
    return int(pc.count_distinct(column).as_py())


def _is_weight(column: pa.ChunkedArray) -> bool:
    """Return whether all values are numbers of at least 0."""
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    least = pc.min(numbers).as_py()
    return not pa.types.is_temporal(column.type) and not column.null_count and least is not None and least >= 0

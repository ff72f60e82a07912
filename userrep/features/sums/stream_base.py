"""The stream base: sums per user that a stream starts from, stored in the ``openings`` tables.

A stream works ahead on an as-of date A. Its users' features are the sums over all days before the open days ``[A -
open_days, A)``, plus the events of the open days that the stream has seen itself. The base of A is therefore the window
sums as seen from A without the open days. It can be built days before the stream needs it. Late events of an open day
need no correction, because the stream reads the whole day.
"""

from datetime import date, timedelta
from typing import Any, NamedTuple

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError, changed_meanwhile
from userrep.features.profiles import Profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.generations import Generation
from userrep.features.sums.refresh import SumsUpdate
from userrep.items.versions import Versions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import OPENINGS, USER_OPENINGS
from userrep.store.sql import sql_date, sql_key
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, tile_ledger
from userrep.utc import utc_now


class StreamBase(NamedTuple):
    """The stream base of an as-of date: sums over days before ``open_from``, by the item vectors of ``valid_from``.

    ``profiles_hash``: fingerprint of the user profiles. ``table_version``: the version of ``user_openings`` that
    contains its rows.
    """

    as_of: date
    open_from: date
    valid_from: date
    revision_by_day: dict[date, int]
    profiles_hash: str
    num_users: int = 0
    table_version: int = 0


_COLUMNS = [name if name != "profiles_hash" else "sides_hash" for name in StreamBase._fields]  # of the ledger


def stream_bases(tables: Tables, lineage_id: str) -> dict[date, StreamBase]:
    """Return a lineage's stream bases by as-of date. Driver memory: a few entries."""
    return {row.as_of: StreamBase(*row) for row in tables.ledger(OPENINGS, _COLUMNS, lineage_id=lineage_id)}


def base_rows(tables: Tables) -> dict[tuple[str, date], Row]:
    """Return the newest ledger row per lineage and as-of date. Driver memory: a few rows."""
    return {(row.lineage_id, row.as_of): row for row in tables.ledger(OPENINGS)}


def build_bases(
    tables: Tables, config: Config, versions: Versions, as_of: date, *, open_days: int, profiles: Profiles,
    ledger: TileLedger | None = None, only_missing: bool = False,
) -> list[tuple[StreamBase, str]]:  # fmt: skip
    """Build the missing or stale stream bases of the ``open_days - 1`` dates after ``as_of``, and delete older ones.

    A base contains no day that closed within the last day, since the stream reads late events of those days itself. A
    base is stale if its days, item vectors, users or picks have changed; ``only_missing`` keeps stale ones. A base with
    newer item vectors, which a run for a later date has built, is always kept. ``as_of``: the newest date with tiles
    and features. Its item vectors are used even if a later date starts a new version. ``profiles``, ``ledger``: the
    profiles and the tile ledger pinned by the run. Returns the bases that were built, with the reason.

    Cost per base: the window sums are read and written once, with the tiles of the days that differ. Without window
    sums or with new item vectors, the tiles of all windows are read. No shuffle. After a kill, the next run builds what
    is missing.

    Raises
    ------
    UsageError
        If the tables are in a catalog: a stream reads single users from files.
    """
    tables, existing = with_files(tables), stream_bases(tables, versions.lineage_id)
    ledger = ledger or tile_ledger(tables)
    span, built = FeatureSpec.of(config).span, []
    for k in range(1, open_days):
        day, open_from = as_of + timedelta(days=k), as_of + timedelta(days=k - open_days)
        revisions = ledger.revisions(day - timedelta(days=span), open_from)
        target = StreamBase(day, open_from, versions.valid_at(as_of), revisions, profiles.profiles_hash)
        before = existing.get(day)
        usable = before if before and before.open_from == open_from else None  # not with another number of open days
        if usable and usable.valid_from > target.valid_from:
            continue  # a run for a later date has built it
        reason = _stale_reason(before, target)
        if reason and not (only_missing and usable):
            sums = Generation(versions.lineage_id, 0, day, target.valid_from, revisions, 0)
            update = SumsUpdate(sums, tables, config, versions, ledger)
            built.append((_build(tables, update, target, profiles, oldest=as_of), reason))
    return built


def with_files(tables: Tables) -> FileTables:
    """Return the tables if they are stored in files, which a stream reads directly. Otherwise raises UsageError."""
    if not isinstance(tables, FileTables):
        raise UsageError(
            "stream: needs tables that userrep can read without Spark, not those of a catalog or on HDFS. "
            "Set root: to a local path or a URI of an object store (s3a://, abfss://, gs://)."
        )
    return tables


def _stale_reason(existing: StreamBase | None, target: StreamBase) -> str:
    """Return why a stream base must be built; empty if it is up to date."""
    if existing is None:
        return "not built yet"
    changes = {
        "number of open days changed": existing.open_from != target.open_from,
        f"item vectors of {target.valid_from} are new": existing.valid_from != target.valid_from,
        "days of the log changed": existing.revision_by_day != target.revision_by_day,
        "users or picks changed": existing.profiles_hash != target.profiles_hash,
    }
    return next((reason for reason, is_changed in changes.items() if is_changed), "")


def _build(
    tables: FileTables, update: SumsUpdate, target: StreamBase, profiles: Profiles, *, oldest: date
) -> StreamBase:
    """Write the rows of a stream base, then its ledger row. Both replace bases of dates before ``oldest``.

    Raises UserrepError if another run changes the rows before the ledger names them: a build of the same base, or an
    erasure.
    """
    keys, since = {"lineage_id": update.versions.lineage_id}, tables.version(USER_OPENINGS)
    pooling = update.pooling(profiles, "stream_base")
    files = [written.file for written in pooling.write({"stream_base": tables.target(USER_OPENINGS)}, **keys)]

    def is_replaced(values: dict[str, Any]) -> bool:
        is_superseded = values["as_of"] == target.as_of or values["as_of"] < oldest
        return bool(values["lineage_id"] == keys["lineage_id"] and is_superseded)

    tables.commit(USER_OPENINGS, files, replacing=is_replaced, since=since)
    base = target._replace(num_users=sum(file.num_rows for file in files))

    def recorded(_: list[Row]) -> list[dict[str, Any]] | None:
        version = tables.version(USER_OPENINGS)
        if base_files(tables, (keys["lineage_id"], base.as_of), version) != {file.path for file in files}:
            return None
        row = zip(_COLUMNS, base._replace(table_version=version), strict=True)
        return [keys | dict(row) | {"built_at": utc_now()}]

    superseded = f"(as_of = {sql_date(target.as_of)} OR as_of < {sql_date(oldest)})"
    if not tables.change(OPENINGS, recorded, replacing=f"{sql_key(keys)} AND {superseded}"):
        raise changed_meanwhile(USER_OPENINGS.name)
    return base


def base_files(tables: FileTables, key: tuple[str, date], version: int) -> set[str] | None:
    """Return the paths of a base's files at a version of ``user_openings``; None if it is no longer readable."""
    if not tables.has_version(USER_OPENINGS, version):
        return None
    files = tables.files(USER_OPENINGS, lambda values: (values["lineage_id"], values["as_of"]) == key, version=version)
    return {file.path for file in files}

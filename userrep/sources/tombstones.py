"""Users who were erased, known by keyed hashes alone, so that a replay of the log or late rows do not bring them back.

The key is a file next to the tables, ``erasure/key`` below the root. Only its owner may read it, since a reader with
the key can test an id against the hashes. It protects copies of the table that leave the root.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from userrep.errors import UserrepError
from userrep.store.schemas import TOMBSTONES
from userrep.store.storage import exists, read_bytes, write_folder
from userrep.store.tables import Tables
from userrep.utc import utc_now

_KEY_BYTES = 32
_HASH_BYTES = 16
_WORD = re.compile(r"[^\s,;|\"'{}\[\]()<>=&]+")


@dataclass(frozen=True)
class Tombstones:
    """The erased users: BLAKE2b of their ids under ``key``. Falsy if there is none."""

    key: bytes
    hashes: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def hash(self, user_id: str) -> bytes:
        """Hash an id as tombstones have it."""
        return _hash(self.key, user_id)

    def holds(self, user_id: str) -> bool:
        """Say whether a user was erased."""
        return self.hash(user_id) in self.hashes

    def hold(self, user_ids: pa.Array) -> NDArray[np.bool_]:
        """Say of each text whether it is the id of an erased user; of a null, no. Some 1 us for each distinct one."""
        coded = user_ids.dictionary_encode()
        words = coded.dictionary.to_pylist()
        is_held = np.array([self.holds(word) for word in words] + [False], np.bool_)
        return np.asarray(is_held[coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)])

    def named_in(self, texts: pa.Array) -> NDArray[np.bool_]:
        """Say which of some rejected rows, as JSON or as they came, name an erased user anywhere."""
        return np.array([any(map(self.holds, _words(text))) for text in texts.to_pylist()], np.bool_)

    def without(self, rows: DataFrame) -> DataFrame:
        """Leave out the rows of erased users, by ``user_id``. Narrow; nothing where nobody was erased."""
        return rows.where(~condition(self.hold, F.col("user_id"))) if self else rows

    def without_named(self, rows: DataFrame) -> DataFrame:
        """Leave out rejected rows whose text, ``row``, names an erased user. Narrow, likewise."""
        return rows.where(~condition(self.named_in, F.col("row"))) if self else rows


def condition(of_texts: Callable[[pa.Array], NDArray[np.bool_]], column: Column) -> Column:
    """Let Spark ask a check of texts about a column."""

    def found(texts: pa.Array) -> pa.Array:
        return pa.array(of_texts(texts.cast(pa.string())))

    found.__annotations__ = {"texts": pa.Array, "return": pa.Array}
    return arrow_udf(found, "boolean")(column)  # type: ignore[call-overload, no-any-return]


def _words(text: str | None) -> set[str]:
    """Return all that may be an id in a text: the values of JSON, of JSON within it, and what lies between marks."""
    if text is None:
        return set()
    words, waiting = set(_WORD.findall(text)) | {text}, [text]
    while waiting:
        try:
            value = json.loads(waiting.pop())
        except (ValueError, RecursionError):
            continue
        for leaf in _leaves(value):
            words.add(leaf)
            words.update(_WORD.findall(leaf))
            if leaf.startswith(("{", "[")):
                waiting.append(leaf)
    return words


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)


NOBODY = Tombstones(b"", frozenset())


def _hash(key: bytes, user_id: str) -> bytes:
    return hashlib.blake2b(user_id.encode(), key=key, digest_size=_HASH_BYTES).digest()


def read_tombstones(tables: Tables) -> Tombstones:
    """Read who was erased. Driver memory: some hundred bytes a user; milliseconds where nobody was.

    Raises
    ------
    UserrepError
        If the key is gone, or is another: without it, erased users would come back.
    """
    rows = tables.ledger(TOMBSTONES, ("user_hash", "key_id"))
    if not rows:
        return NOBODY
    key = _read_key(tables)
    if key is None or any(row.key_id != _key_id(key) for row in rows):
        raise UserrepError(
            f"{_key_folder(tables)}/key: not the key that users were erased with. Restore the file: without it, they "
            "would come back with the next rows of the log."
        )
    return Tombstones(key, frozenset(row.user_hash for row in rows))


def request_id_of(tables: Tables, user_ids: Iterable[str]) -> str:
    """Name a request by whom it is about, in a way that tells nobody who that is; the same users, the same name."""
    key = read_tombstones(tables).key or _make_key(tables)
    return f"f{_hash(key, json.dumps(sorted(user_ids))).hex()[:16]}"


def add_tombstones(tables: Tables, user_ids: Iterable[str]) -> int:
    """Put up tombstones for those users who have none, in one commit; return how many these are."""
    there = read_tombstones(tables)
    key = there.key or _make_key(tables)
    missing = sorted({_hash(key, user_id) for user_id in user_ids} - there.hashes)
    rows = [{"user_hash": of, "key_id": _key_id(key), "erased_at": utc_now()} for of in missing]
    if rows:
        tables.add(TOMBSTONES, rows)
    return len(rows)


def _make_key(tables: Tables) -> bytes:
    """Make the key, unless another run has done so."""
    if not exists(f"{_key_folder(tables)}/key"):
        with suppress(FileExistsError):
            write_folder(_key_folder(tables), {"key": secrets.token_hex(_KEY_BYTES).encode()}, mode=0o600)
    key = _read_key(tables)
    assert key is not None
    return key


def _read_key(tables: Tables) -> bytes | None:
    try:
        return bytes.fromhex(read_bytes(f"{_key_folder(tables)}/key", max_bytes=4 * _KEY_BYTES).decode())
    except FileNotFoundError:
        return None


def _key_folder(tables: Tables) -> str:
    return f"{tables.artifacts_root}/erasure"


def _key_id(key: bytes) -> str:
    return _hash(key, "").hex()

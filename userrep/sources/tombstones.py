"""Tombstones: keyed hashes of erased users' ids, so that replays of the log and late rows do not restore the users.

The key is a file next to the tables, ``erasure/key`` below the root. Only its owner may read it, since the key lets a
reader test whether an id was erased. The key protects copies of the table outside the root.
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

from userrep.errors import UserrepError
from userrep.spark.releases import Arrays, arrow_udf
from userrep.store.filesystem import exists, read_bytes, write_folder
from userrep.store.schemas import TOMBSTONES
from userrep.store.tables import Tables
from userrep.utc import utc_now

_KEY_BYTES = 32
_HASH_BYTES = 16
_WORD = re.compile(r"[^\s,;|\"'{}\[\]()<>=&]+")  # text between separators
_FIELD = re.compile(r"[^,;|\t]+")  # of a line of CSV
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)')  # a text of a torn line of JSON, whose end may be missing


@dataclass(frozen=True)
class Tombstones:
    """The erased users, as BLAKE2b hashes of their ids under ``key``. Falsy if no user was erased."""

    key: bytes
    hashes: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.hashes)

    @classmethod
    def of(cls, user_ids: Iterable[str]) -> "Tombstones":
        """Return tombstones of users who are not erased, under a random key, to look for their rows."""
        key = secrets.token_bytes(_KEY_BYTES)
        return cls(key, frozenset(_hash(key, user_id) for user_id in user_ids))

    def hash(self, user_id: str) -> bytes:
        """Return the hash that a tombstone of this user has."""
        return _hash(self.key, user_id)

    def contains(self, user_id: str) -> bool:
        """Return whether a user was erased."""
        return self.hash(user_id) in self.hashes

    def mask(self, user_ids: pa.Array) -> NDArray[np.bool_]:
        """Return for each id whether the user was erased; False for null. Cost: about 1 µs per distinct id."""
        if not self:
            return np.zeros(len(user_ids), np.bool_)
        coded = user_ids.dictionary_encode()
        distinct_ids = coded.dictionary.to_pylist()
        is_erased = np.array([self.contains(user_id) for user_id in distinct_ids] + [False], np.bool_)
        return np.asarray(is_erased[coded.indices.fill_null(len(distinct_ids)).to_numpy(zero_copy_only=False)])

    def named_in(self, texts: pa.Array) -> NDArray[np.bool_]:
        """Return for each rejected row, as JSON or as raw text, whether it contains an erased user's id anywhere."""
        contents = texts.cast(pa.binary()).to_pylist()  # Spark keeps the bytes of a line that is not UTF-8
        return np.array([any(map(self.contains, _ids_in(content))) for content in contents], np.bool_)

    def without(self, rows: DataFrame) -> DataFrame:
        """Remove the rows of erased users, by ``user_id``. No shuffle; returns ``rows`` itself without tombstones."""
        return rows.where(~condition(self.mask, F.col("user_id"))) if self else rows

    def without_named(self, rows: DataFrame) -> DataFrame:
        """Remove rejected rows whose text, ``row``, names an erased user. No shuffle, as in ``without``."""
        return rows.where(~condition(self.named_in, F.col("row"))) if self else rows


def condition(check: Callable[[pa.Array], NDArray[np.bool_]], column: Column) -> Column:
    """Apply a check of an array of texts to a column of Spark."""

    def check_batches(batches: Arrays) -> Iterator[pa.Array]:
        return (pa.array(check(texts)) for (texts,) in batches)

    return arrow_udf(check_batches, "boolean", pa.string())(column)


def _ids_in(content: bytes | None) -> set[str]:
    """Return every part of a row that may be an id. Bytes that are not UTF-8 are also read as Latin-1."""
    if content is None:
        return set()
    try:
        return _possible_ids(content.decode())
    except UnicodeDecodeError:
        return _possible_ids(content.decode(errors="replace")) | _possible_ids(content.decode("latin-1"))


def _possible_ids(text: str) -> set[str]:
    """Return every part of a text that may be an id: JSON values, values of JSON inside them, fields and words."""
    words = _WORD.findall(text)  # a torn line of compact JSON has :7 for a number
    ids, pending = {part for word in words for part in (word, *word.split(":"))} | {text}, [text]
    ids |= {field.strip(" \"'") for field in _FIELD.findall(text)} | {*map(_unescaped, _QUOTED.findall(text))}
    while pending:
        try:
            value = json.loads(pending.pop())
        except (ValueError, RecursionError):
            continue
        for leaf in _leaves(value):
            ids.add(leaf)
            ids.update(_WORD.findall(leaf))
            if leaf.startswith(("{", "[")):
                pending.append(leaf)
    return ids


def _unescaped(text: str) -> str:
    """Resolve the escapes of a text between two quotes of JSON; if they are not valid, return it unchanged."""
    with suppress(ValueError):
        return str(json.loads(f'"{text}"'))
    return text


def _leaves(value: Any) -> Iterator[str]:
    """Yield the values of a JSON document, except nulls, as text, in any order."""
    pending = [value]  # no recursion: a document may be nested deeper than Python's stack
    while pending:
        inner = pending.pop()
        if isinstance(inner, dict | list):
            pending += inner.values() if isinstance(inner, dict) else inner
        elif inner is not None:
            yield str(inner)
            if isinstance(inner, float) and inner.is_integer():  # an id in a column of floats
                yield str(int(inner))


NO_TOMBSTONES = Tombstones(b"", frozenset())


def _hash(key: bytes, user_id: str) -> bytes:
    content = user_id.encode(errors="surrogatepass")  # JSON may contain half of a pair of surrogates
    return hashlib.blake2b(content, key=key, digest_size=_HASH_BYTES).digest()


def read_tombstones(tables: Tables) -> Tombstones:
    """Read the tombstones. Driver memory: about a hundred bytes per erased user.

    Raises
    ------
    UserrepError
        If the key is missing or is not the one that the tombstones were written with.
    """
    rows = tables.ledger(TOMBSTONES, ("user_hash", "key_id"))
    if not rows:
        return NO_TOMBSTONES
    key = _read_key(tables)
    if key is None or any(row.key_id != _key_id(key) for row in rows):
        fault = "missing" if key is None else "not the key that users were erased with"
        raise UserrepError(
            f"{_key_folder(tables)}/key: {fault}. Restore the file. Without it, erased users would return with the "
            "next rows of the log."
        )
    return Tombstones(key, frozenset(row.user_hash for row in rows))


def request_id_of(tables: Tables, user_ids: Iterable[str]) -> str:
    """Return the id of a request to erase these users, a keyed hash of their ids. Creates the key if it is missing."""
    key = read_tombstones(tables).key or _create_key(tables)
    return f"f{_hash(key, json.dumps(sorted(user_ids))).hex()[:16]}"


def add_tombstones(tables: Tables, user_ids: Iterable[str]) -> int:
    """Add tombstones for the users that have none, in one commit. Return how many were added."""
    tombstones = read_tombstones(tables)
    key = tombstones.key or _create_key(tables)
    missing = sorted({_hash(key, user_id) for user_id in user_ids} - tombstones.hashes)
    rows = [{"user_hash": user_hash, "key_id": _key_id(key), "erased_at": utc_now()} for user_hash in missing]
    if rows:
        tables.add(TOMBSTONES, rows)
    return len(rows)


def _create_key(tables: Tables) -> bytes:
    """Create the key, or read it if another run has created it."""
    if not exists(f"{_key_folder(tables)}/key"):
        with suppress(FileExistsError):
            write_folder(_key_folder(tables), {"key": secrets.token_hex(_KEY_BYTES).encode()}, mode=0o600)
    key = _read_key(tables)
    if key is None:
        raise UserrepError(f"{_key_folder(tables)}: has files but no key. Restore the key, or remove these files.")
    return key


def _read_key(tables: Tables) -> bytes | None:
    try:
        return bytes.fromhex(read_bytes(f"{_key_folder(tables)}/key", max_bytes=4 * _KEY_BYTES).decode())
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UserrepError(
            f"{_key_folder(tables)}/key: this account may not read the key of erased users, without which it cannot "
            "leave them out. Give it read access, for example with `chgrp` and `chmod 640`."
        ) from None


def _key_folder(tables: Tables) -> str:
    return f"{tables.artifacts_root}/erasure"


def _key_id(key: bytes) -> str:
    return _hash(key, "").hex()

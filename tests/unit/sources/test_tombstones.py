"""Tombstones: erased users are recognized by keyed hashes, other users are not, and no id is stored."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from userrep.errors import UserrepError
from userrep.sources.tombstones import NO_TOMBSTONES, Tombstones, add_tombstones, read_tombstones, request_id_of
from userrep.store.file_tables import FileTables
from userrep.store.schemas import TOMBSTONES
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

KEY = bytes(range(32))
ANN, BOB = "ann@example.com", "bob"


def erased(*user_ids: str, key: bytes = KEY) -> Tombstones:
    return Tombstones(key, frozenset(Tombstones(key, frozenset()).hash(user_id) for user_id in user_ids))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


# Recognizing users


def test_stored_hashes_stay_valid() -> None:
    """Tables contain these hashes, so the hash function must not change. The value is from `openssl mac`."""
    stored = "08eedc69aabb888ef468dadde562d6be"
    assert Tombstones(KEY, frozenset([bytes.fromhex(stored)])).contains("bob")


def test_only_the_ids_of_erased_users_are_recognized_and_never_a_null() -> None:
    found = erased(ANN, "").mask(pa.array([ANN, BOB, None, ANN.upper(), f"{ANN} ", "", ANN]))
    assert found.tolist() == [True, False, False, False, False, True, True]
    assert erased(ANN).mask(pa.array([None, BOB]).dictionary_encode()[:1]).tolist() == [False]
    assert erased(ANN).mask(pa.array([], pa.string())).tolist() == []


def test_a_hash_depends_on_the_key() -> None:
    other = erased(ANN, key=bytes(32))
    assert other.contains(ANN)
    assert not Tombstones(KEY, other.hashes).contains(ANN)


def test_tombstones_without_a_user_are_falsy() -> None:
    assert not NO_TOMBSTONES
    assert not Tombstones(KEY, frozenset())
    assert erased(ANN)


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        (json.dumps({"user": "bob"}), True),
        (json.dumps({"user": {"ids": [1, "bob"]}}), True),
        (json.dumps({"row": json.dumps({"user": "bob"})}), True),
        (json.dumps({"place": "t/0/1", "row": json.dumps({"row": json.dumps(["bob"])})}), True),
        (json.dumps({"note": "from bob, late"}), True),
        ('{"user": "bob", "item": ', True),  # JSON that was cut off
        ("bob;i1;2024", True),
        ("bob", True),
        (json.dumps({"user": 4711}), True),
        (json.dumps({"user": 4711.0}), True),
        ('{"user":4711,"it', True),
        (json.dumps({"user": "two words"}), True),
        ('{"user":"two words","it', True),
        ('{"user":"d\\u00e9j\\u00e0=","it', True),
        ("7, two words ,i1", True),
        (json.dumps({"user": "bobby", "bob2": None}), False),
        (json.dumps({"user": 47110}), False),
        ("", False),
        (None, False),
    ],
)
def test_a_rejected_row_is_recognized_if_it_names_an_erased_user_anywhere(text: str | None, is_named: bool) -> None:
    found = erased("bob", "4711", "two words", "déjà=").named_in(pa.array([text, "carol"], pa.string()))
    assert found.tolist() == [is_named, False]


def test_a_rejected_row_that_is_not_utf8_is_searched_too() -> None:
    rows = [
        '{"user": "bob", "item": "Käse"}'.encode("latin-1"),
        '{"user": "déjà", "item": 1'.encode("latin-1"),
        '{"user": "carol", "item": "Käse"}'.encode("latin-1"),
        b'{"user": "\\ud83d", "item": 1}',  # half of an emoji
    ]
    contents = pa.array(rows, pa.binary())
    texts = pa.Array.from_buffers(pa.string(), len(rows), contents.buffers())  # as Spark passes it, unchecked
    assert erased("bob", "déjà").named_in(texts).tolist() == [True, True, False, False]


# The table and the key


def test_each_user_gets_one_tombstone_and_no_id_is_stored(tables: Tables, tmp_path: Path) -> None:
    assert not read_tombstones(tables)
    assert [add_tombstones(tables, ids) for ids in ([ANN, BOB, ANN], [BOB], [BOB, "eve"], [])] == [2, 0, 1, 0]
    assert len(tables.ledger(TOMBSTONES)) == 3
    found = read_tombstones(tables)
    assert found.mask(pa.array([ANN, BOB, "eve", "mallory"])).tolist() == [True, True, True, False]
    files = [path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert not [content for content in files if ANN.encode() in content]


def test_the_key_is_random_and_created_once(tables: Tables, tmp_path: Path) -> None:
    add_tombstones(tables, [ANN])
    key = (tmp_path / "root" / "erasure" / "key").read_text()
    assert (tmp_path / "root" / "erasure" / "key").stat().st_mode & 0o777 == 0o600
    add_tombstones(tables, [BOB])
    assert (tmp_path / "root" / "erasure" / "key").read_text() == key
    assert len(bytes.fromhex(key)) == 32
    other = FileTables(None, str(tmp_path / "other"))
    add_tombstones(other, [ANN])
    assert (tmp_path / "other" / "erasure" / "key").read_text() != key


@pytest.mark.parametrize("key", [None, "00" * 32], ids=["no key", "another key"])
def test_tombstones_without_their_own_key_are_an_error(tables: Tables, tmp_path: Path, key: str | None) -> None:
    add_tombstones(tables, [ANN])
    path = tmp_path / "root" / "erasure" / "key"
    path.unlink() if key is None else path.write_text(key)
    fault = "missing" if key is None else "not the key that users were erased with"
    with pytest.raises(UserrepError, match=rf"erasure/key: {fault}\. Restore the file"):
        read_tombstones(tables)
    with pytest.raises(UserrepError, match=fault):
        add_tombstones(tables, [BOB])
    assert len(tables.ledger(TOMBSTONES)) == 1


def test_a_request_id_depends_on_the_set_of_users_and_on_the_key_of_the_root(tables: Tables, tmp_path: Path) -> None:
    name = request_id_of(tables, [ANN, BOB])
    assert name == request_id_of(tables, [BOB, ANN])
    add_tombstones(tables, [ANN])
    assert name == request_id_of(tables, [ANN, BOB])
    others = [request_id_of(tables, ids) for ids in ([ANN], [BOB], [f"{ANN}{BOB}"])]
    other_root = request_id_of(FileTables(None, str(tmp_path / "other")), [ANN, BOB])
    assert len({name, *others, other_root}) == 5

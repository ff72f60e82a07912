"""Names that may be part of a path, names of snapshots, and hashes."""

import hashlib
from datetime import date
from pathlib import Path

import pytest

from userrep import ids
from userrep.errors import UsageError
from userrep.ids import checked_name, short_hash, snapshot_id

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "9lives", "x" * 64])
def test_a_valid_name_is_kept_as_it_is(name: str) -> None:
    assert checked_name(name, "space") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/b",
        "a.b",
        "a b",
        "a\x00b",
        "a\n",
        "x" * 65,
        "Space",
        "-a",
        "_a",
        "naïve",
        "\N{FULLWIDTH LATIN SMALL LETTER A}",
        "\N{FULLWIDTH DIGIT ONE}",
        "a'b",
        "a`b",
    ],
)
def test_a_name_that_may_not_touch_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid name: use 1 to 64 of a-z, 0-9, _ and -") as caught:
        checked_name(name, "space")
    assert "\x00" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_snapshot_is_named_by_space_date_and_revision() -> None:
    assert snapshot_id("s1", date(2024, 5, 1), 2) == "s1-20240501-r2"
    with pytest.raises(UsageError, match="snapshot"):
        snapshot_id("../s1", date(2024, 5, 1), 2)


def test_hashes_depend_on_content_not_on_order_of_keys() -> None:
    assert short_hash({"a": 1, "b": date(2024, 1, 1)}) == short_hash({"b": date(2024, 1, 1), "a": 1})
    assert short_hash({"a": 1}) != short_hash({"a": 2})
    assert len(short_hash("x", 7)) == 7


def test_a_hash_is_the_beginning_of_the_sha_256_of_compact_json() -> None:
    canonical = b'{"a":[1,null,"x"],"b":"2024-01-31","c":"log/day=1"}'
    value = {"c": Path("log/day=1"), "b": date(2024, 1, 31), "a": [1, None, "x"]}
    assert short_hash(value) == hashlib.sha256(canonical).hexdigest()[:10]


def test_the_hash_of_the_code_changes_with_the_text_and_the_name_of_any_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "__file__", str(tmp_path / "ids.py"))
    code_hash = ids.code_hash.__wrapped__  # without its cache
    module = tmp_path / "deep" / "module.py"
    module.parent.mkdir()
    (tmp_path / "ids.py").write_text("")
    module.write_text("x = 1\n")
    before = code_hash()
    (tmp_path / "notes.txt").write_text("not code")
    assert code_hash() == before
    module.write_text("x = 2\n")
    changed = code_hash()
    module.rename(module.with_name("renamed.py"))
    assert len({before, changed, code_hash()}) == 3
    assert len(before) == 10

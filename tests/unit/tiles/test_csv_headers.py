"""Headers of CSV files: which ones agree with the columns of the log."""

from pathlib import Path

import pytest

from userrep.tiles.inventory.csv_headers import _header_fault, _is_named

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "expected", "is_named"),
    [
        ("user_id", "user_id", True),
        ("USER_ID", "user_id", True),
        ("", "_c2", True),
        ("x", "x2", True),  # a name that the header repeats
        ("x", "x1", False),
        ("user_id", "item_id", False),
    ],
)
def test_names_agree_as_spark_names_columns(name: str, expected: str, is_named: bool) -> None:
    assert _is_named(name, expected, 3) is is_named


@pytest.mark.parametrize(
    ("header", "difference"),
    [
        ("a,b", None),
        ("\ufeffa,b", None),
        ("\n\r\na,b\r", None),
        ('"a","b"', None),
        ("a", None),
        ("a,b,new", None),
        ("a,b,day", None),
        ("1,2", (1, "1", "a")),  # a row instead of a header
        ("b,a", (1, "b", "a")),
        ("a,new,b", (2, "new", "b")),
    ],
)
def test_a_file_may_lack_the_last_columns_or_have_more(
    tmp_path: Path, header: str, difference: tuple[int, str, str] | None
) -> None:
    path = tmp_path / "day=1" / "a.csv"
    path.parent.mkdir()
    path.write_text(f"{header}\n1,2\n", encoding="utf-8")
    number, name, expected = difference or (0, "", "")
    fault = f"{path}: column {number} is named {name} instead of {expected}." if difference else None
    assert _header_fault(str(path), ["a", "b", "day"]) == fault

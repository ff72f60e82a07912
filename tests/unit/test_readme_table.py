"""README's table of quality is what the records say."""

from pathlib import Path

import pytest

from benchmarks.readme_table import with_table
from benchmarks.results import RECORDS

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]


def test_readme_has_the_table_of_todays_records() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(text, ROOT / RECORDS) == text, "run make results"


def test_a_readme_without_the_place_of_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs one pair of lines with the markers"):
        with_table("# userrep", ROOT / RECORDS)

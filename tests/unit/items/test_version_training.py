"""Training of item-vector versions: on how many users, which versions together, and what a full task reports."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.errors import PythonException

from tests.support.builders import config_of
from userrep.errors import UserrepError
from userrep.items.als import memory_error_with_advice
from userrep.items.version_training import _bucket_limit, _groups
from userrep.store.buckets import NUM_BUCKETS
from userrep.tiles.ledger import TileDay, TileLedger

pytestmark = pytest.mark.fast

V0, V1, V2 = date(2024, 5, 1), date(2024, 5, 8), date(2024, 5, 15)


# How many users ALS is fitted on


def ledger_of(*days: tuple[date, int, int]) -> TileLedger:
    """Make a ledger of days, each with its newest revision and the tiles of it; older ones have a million."""
    entries = {
        (day, n): TileDay("f", "c", n, num, 0, num if n == revision else 10**6)
        for day, revision, num in days
        for n in range(revision + 1)
    }
    newest = {day: entries[day, revision] for day, revision, _ in days}
    return TileLedger(1, newest, TileDay("", "", 0, 0, 0), entries)


@pytest.mark.parametrize(
    ("version", "max_tiles", "share"),
    [(V2, 100, 0.25), (V2, 400, 1), (V2, 1000, 1), (V1, 50, 0.5), (V1 + timedelta(days=1), 100, 0.25), (V0, 1, 1)],
)
def test_als_takes_the_share_of_users_that_has_as_many_tiles_before_the_version(
    version: date, max_tiles: int, share: float
) -> None:
    ledger = ledger_of((V0, 3, 100), (V1, 1, 300))
    assert _bucket_limit(ledger, version, max_tiles) == NUM_BUCKETS * share


# Versions that are fitted together


@pytest.mark.parametrize(
    ("solver", "groups"),
    [("implicit", [[0, 1, 2], [3], [4]]), ("spark", [[0], [1], [2], [3], [4]])],
)
def test_versions_together_have_ten_million_tiles_at_most_and_a_larger_one_is_alone(
    tmp_path: Path, solver: str, groups: list[list[int]]
) -> None:
    config = config_of(tmp_path, item_vectors={"behaviour": {"kind": "als", "dim": 4, "solver": solver}})
    versions = [V1 + timedelta(days=k) for k in range(5)]
    sizes = [2_000_000, 1_000_000, 2_000_000, 6_000_000, 1_000_000]  # totals: 2, 3, 5, 11 and 12 million
    ledger = ledger_of(*((day - timedelta(days=1), 1, num) for day, num in zip(versions, sizes, strict=True)))
    assert _groups(config, ledger, versions) == [[versions[k] for k in group] for group in groups]


# Too many interactions for a task


def test_a_task_that_cannot_hold_the_interactions_fails_with_one_line_and_the_cure() -> None:
    text = "Traceback\nMemoryError: not enough memory for ALS: at least 9 pairs need 4 GB.\n at x"
    told = r"^item_vectors: not enough memory for ALS: at least 9 .* 4 GB\. Lower max_tiles .*memoryOverhead\)\.$"
    with pytest.raises(UserrepError, match=told), memory_error_with_advice():
        raise PythonException(text)
    with pytest.raises(PythonException, match="another"), memory_error_with_advice():
        raise PythonException("another error")

"""Which snapshot counts at a time: the ledger as steps, and steps as days, against a look at everything there is.

The files of each snapshot, and the width of its vectors.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.embedding_tables import Oracle, add_spaces, publish, snapshot
from userrep.joins.ledger import Sources, Step, _by_day, files_by_snapshot, steps_of, usable_sources
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import EXPIRED, Snapshot
from userrep.store.file_tables import FileTables
from userrep.utc import utc_now

pytestmark = pytest.mark.fast

D1, D2, D3 = date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 3)
MICROSECOND = timedelta(microseconds=1)


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2024, 5, day, hour)


def counting(steps: Sequence[Step], when: datetime) -> Snapshot | None:
    """Return the snapshot of the last step at or before a time."""
    return next((step.snapshot for step in reversed(steps) if step.since <= when), None)


def random_ledger(chance: random.Random) -> list[Snapshot]:
    """Draw revisions of some days that come in any order, many of them at the same time."""
    return [
        snapshot(date(2024, 5, day), revision, at(day, 6) + timedelta(hours=6 * chance.randint(-1, 12)))
        for day in range(1, 6)
        for revision in range(1, chance.randint(0, 3) + 1)
    ]


def test_a_snapshot_counts_from_the_very_time_at_which_it_is_available() -> None:
    first, second = snapshot(D1, at=at(1, 6)), snapshot(D2, at=at(2, 6))
    steps = steps_of([second, first], "ledger")
    assert steps == [(at(1, 6), first), (at(2, 6), second)]
    found = [counting(steps, at(2, 6) + k * MICROSECOND) for k in (-1, 0, 1)]
    assert found == [first, second, second]
    assert counting(steps, at(1, 6) - MICROSECOND) is None


def test_a_later_date_counts_before_a_later_revision() -> None:
    late = snapshot(D1, revision=9, at=at(5))
    newer = snapshot(D2, revision=1, at=at(2, 6))
    again = snapshot(D2, revision=2, at=at(6))
    assert steps_of([late, newer, again], "ledger") == [(at(2, 6), newer), (at(6), again)]


def test_of_snapshots_available_at_once_the_newest_date_and_then_the_highest_revision_counts() -> None:
    same = [snapshot(D1, 10, at(4)), snapshot(D2, 9, at(4)), snapshot(D2, 10, at(4)), snapshot(D2, 1, at(4))]
    for ledger in (same, same[::-1]):
        assert steps_of(ledger, "ledger") == [(at(4), same[2])]


def test_by_its_date_a_snapshot_counts_from_midnight_whenever_it_was_made() -> None:
    late, again, other = snapshot(D1, at=at(9)), snapshot(D1, 2, at(30)), snapshot(D3, at=at(3))
    assert steps_of([late, again, other], "as_of") == [(at(1), again), (at(3), other)]


def test_a_snapshot_that_was_never_available_does_not_count() -> None:
    staged = snapshot(D2, state="staged")
    assert staged.available_at is None
    assert steps_of([staged], "ledger") == []
    assert steps_of([snapshot(D2, state="expired"), staged], "ledger")[0].snapshot.state == "expired"


@pytest.mark.parametrize("availability", ["ledger", "as_of"])
@given(seed=st.integers(0, 10_000))
def test_steps_are_what_brute_force_finds_at_every_edge(availability: str, seed: int) -> None:
    ledger = random_ledger(random.Random(seed))
    oracle = Oracle({made: {} for made in ledger}, availability=availability)
    steps = steps_of(ledger, availability)  # type: ignore[arg-type]
    edges = [s.available_at for s in ledger if s.available_at] + [datetime.combine(s.as_of, time()) for s in ledger]
    for when in (edge + k * MICROSECOND for edge in edges for k in (-1, 0, 1)):
        assert counting(steps, when) == oracle._snapshot(when)
    ranks = [(step.snapshot.as_of, step.snapshot.revision) for step in steps]
    assert ranks == sorted(set(ranks))
    assert [step.since for step in steps] == sorted({step.since for step in steps})


def row_of(steps: Sequence[Step]) -> Callable[[datetime], int | None]:
    """Return a look-up by day, then time, which fails where more than one row counts."""
    rows = list(_by_day(steps))
    last = steps[-1].since.date()

    def look_up(when: datetime) -> int | None:
        aware = when.replace(tzinfo=UTC)
        mine = [k for day, (since, until), k in rows if day == min(when.date(), last) and since <= aware < until]
        assert len(mine) <= 1
        return mine[0] if mine else None

    return look_up


@given(
    hours=st.lists(st.integers(0, 24 * 8), min_size=1, max_size=6, unique=True), others=st.lists(st.integers(-30, 500))
)
def test_a_time_is_found_on_its_day_in_exactly_one_step(hours: list[int], others: list[int]) -> None:
    steps = [
        Step(at(1) + timedelta(hours=hour), snapshot(D1 + timedelta(days=k))) for k, hour in enumerate(sorted(hours))
    ]
    look_up = row_of(steps)
    times = [step.since + k * MICROSECOND for step in steps for k in (-1, 0, 1)]
    times += [at(1) + timedelta(hours=hour) for hour in others] + [datetime(2200, 1, 1)]
    for when in times:
        place = look_up(when)
        assert (None if place is None else steps[place].snapshot) == counting(steps, when)


def test_a_step_has_a_row_for_each_day_that_it_counts_on() -> None:
    steps = [Step(at(1, 6), snapshot(D1)), Step(at(3), snapshot(D2)), Step(at(3, 6), snapshot(D3))]
    rows = [(day.day, k) for day, _, k in _by_day(steps)]
    assert rows == [(1, 0), (2, 0), (3, 1), (3, 2)]  # not the 3rd for the first step, which ends at midnight
    assert [since.hour for _, (since, _), _ in _by_day(steps)] == [6, 6, 0, 6]
    assert list(_by_day([])) == []


def test_each_snapshot_has_its_files_and_an_expired_one_has_none(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a", "s002-b")
    publish(tables, {snapshot(D1, state=EXPIRED): {"u": [0.0]}, snapshot(D2): {"u": [1.0]}})
    publish(tables, {snapshot(D2, space="s002-b"): {"u": [2.0]}})
    sources = usable_sources(tables, "s001-a")
    found = files_by_snapshot(tables, sources.version, sources.snapshots)
    assert [[uri.split("user_embeddings/")[1].rpartition("/")[0] for uri in files.uris] for files in found] == [
        [],
        ["space_id=s001-a/as_of=2024-05-02/revision=1"],
    ]


def test_the_newest_snapshot_is_an_available_one_if_there_is_any(tmp_path: Path) -> None:
    tables, soon = FileTables(None, str(tmp_path)), snapshot(D2, at=utc_now() + timedelta(hours=1))
    add_spaces(tables, "s001-a")
    for snapshots, newest in (([snapshot(D1), soon], D1), ([soon], D2)):
        assert Sources(find_space(tables, "s001-a"), snapshots, version=1).newest.as_of == newest


def test_the_width_is_that_of_any_gated_snapshot(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(D1): {"u": [0.0]}})
    sources = usable_sources(tables, "s001-a")
    assert sources.dim is None
    assert replace(sources, snapshots=[snapshot(D1), snapshot(D2, dim=3)]).dim == 3

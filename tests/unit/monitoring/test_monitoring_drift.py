"""Which snapshots drift compares, how it judges what was measured, and what it keeps; without measuring anything."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.config import Config
from userrep.errors import UsageError
from userrep.monitoring.drift import MeasuredDrift, _num_buckets, _recorded, measure_drift
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import Snapshot, list_snapshots, record_snapshots
from userrep.store.open import open_tables
from userrep.store.schemas import SNAPSHOT_DRIFT
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

SPACE = "s001-a"
D1, D2, D3 = date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 3)
NOW = datetime(2024, 5, 3, 8)
METRICS = (
    "rows_change", "new_share", "vanished_share", "no_event_change", "norm_change", "mean_shift", "variance_change",
    "rank_loss", "neighbours_lost", "psi", "error_growth",
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    """Tables without a session: whatever has to be measured fails."""
    tables = open_tables(config, None)
    add_spaces(tables, SPACE)
    return tables


def record(
    tables: Tables,
    before: Snapshot,
    now: Snapshot,
    values: Mapping[str, float],
    parts: Mapping[str, float] = {},
    outcome: str = "ok",
) -> None:
    """Record metrics of ``now``, 0 where ``values`` names none, and parts of psi."""
    about = {"snapshot_id": now.snapshot_id, "space_id": SPACE, "as_of": now.as_of, "before_id": before.snapshot_id}
    about |= {"measured_at": NOW}
    rows = [
        about | {"metric": name, "part": "", "value": values.get(name, 0.0), "outcome": outcome} for name in METRICS
    ]
    rows += [about | {"metric": "psi", "part": part, "value": value, "outcome": None} for part, value in parts.items()]
    tables.add(SNAPSHOT_DRIFT, rows)


def measured(tables: Tables, config: Config, snapshot: Snapshot) -> MeasuredDrift:
    found = measure_drift(tables, config, find_space(tables, SPACE), snapshot)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (0.25, "ok"),
        (math.nextafter(0.25, 1), "warn"),
        (0.5, "warn"),
        (math.nextafter(0.5, 1), "fail"),
    ],
)
def test_a_drift_of_exactly_the_limit_is_within_it(tables: Tables, tmp_path: Path, value: float, outcome: str) -> None:
    limits = config_of(tmp_path, drift={"warn": {"psi": 0.25}, "fail": {"psi": 0.5}})
    before, now = snapshot(D1), snapshot(D2)
    record_snapshots(tables, [before, now])
    record(tables, before, now, {"psi": value})
    found = measured(tables, limits, now)
    assert found.outcomes == dict.fromkeys(METRICS, "ok") | {"psi": outcome}
    assert found.describe(outcome)[:1] == ([f"psi {value:.3f}"] if outcome != "ok" else ["rows_change 0.000"])


def test_a_metric_without_a_limit_may_move_any_distance(tables: Tables, tmp_path: Path) -> None:
    unlimited = config_of(tmp_path, drift={"warn": {"psi": None}, "fail": {"mean_shift": 9.0}})
    before, now = snapshot(D1), snapshot(D2)
    record_snapshots(tables, [before, now])
    record(tables, before, now, {"psi": 1e9, "mean_shift": 9.5})
    outcomes = measured(tables, unlimited, now).outcomes
    assert (outcomes["psi"], outcomes["mean_shift"]) == ("ok", "fail")


def test_recorded_metrics_are_judged_by_the_limits_as_they_are_now(
    tables: Tables, config: Config, tmp_path: Path
) -> None:
    before, now = snapshot(D1), snapshot(D2)
    record_snapshots(tables, [before, now])
    record(tables, before, now, {"psi": 0.2, "new_share": 0.1}, {"num_events_7d": 0.2, "weight_7d": 0.125})
    version = tables.version(SNAPSHOT_DRIFT)
    assert set(measured(tables, config, now).outcomes.values()) == {"ok"}
    assert tables.version(SNAPSHOT_DRIFT) == version  # the same outcomes are not recorded again

    stricter = config_of(tmp_path, drift={"fail": {"psi": 0.1}})
    found = measured(tables, stricter, now)
    assert (found.outcomes["psi"], found.outcomes["new_share"], found.is_new) == ("fail", "ok", False)
    assert found.describe("fail") == ["psi 0.200 (num_events_7d)"]
    kept = {(row.metric, row.part): (row.value, row.outcome) for row in tables.ledger(SNAPSHOT_DRIFT)}
    assert kept == {(name, ""): (0.0, "ok") for name in METRICS} | {
        ("psi", ""): (0.2, "fail"), ("new_share", ""): (0.1, "ok"),
        ("psi", "num_events_7d"): (0.2, None), ("psi", "weight_7d"): (0.125, None),
    }  # fmt: skip


def test_a_snapshot_is_compared_with_the_newest_published_revision_of_the_last_date_before_it(
    tables: Tables, config: Config
) -> None:
    wanted, now = snapshot(D2, revision=2), snapshot(D3, revision=2, state="staged")
    others = [
        snapshot(D1, revision=7), snapshot(D2), snapshot(D2, revision=3, state="staged"),
        snapshot(D2, revision=4, state="refused"), snapshot(D3),
    ]  # fmt: skip
    record_snapshots(tables, [now, wanted, *others])
    record(tables, wanted, now, {"rank_loss": 0.0625})
    found = measured(tables, config, now)
    assert (found.before, found.snapshot, found.metrics["rank_loss"]) == (wanted, now, 0.0625)


def test_without_a_snapshot_there_is_nothing_to_measure(tables: Tables, config: Config) -> None:
    publish(tables, {snapshot(D1): {"u": [1.0]}})
    (only,) = list_snapshots(tables, SPACE)
    assert measure_drift(tables, config, find_space(tables, SPACE), only) is None


def test_metrics_count_as_measured_only_if_all_of_them_are_recorded_against_the_same_snapshot(tables: Tables) -> None:
    before, now = snapshot(D1), snapshot(D2)
    record(tables, before, now, {"psi": 0.5}, {"weight_7d": 0.5})
    found = _recorded(tables, now, before)
    assert found is not None
    assert (found.metrics["psi"], found.parts, found.is_new) == (0.5, {"psi": {"weight_7d": 0.5}}, False)
    assert _recorded(tables, now, snapshot(D1, revision=2)) is None
    tables.add(SNAPSHOT_DRIFT, [], replacing="metric = 'psi' AND part = ''")
    assert _recorded(tables, now, before) is None


def test_metrics_are_reported_with_the_part_that_moved_most(tables: Tables) -> None:
    found = MeasuredDrift(
        snapshot(D2), snapshot(D1), {"psi": 0.1236, "new_share": 0.5, "mean_shift": 0.1},
        {"psi": {"weight_7d": 0.05, "num_events_7d": 0.1236}, "mean_shift": {"dimension 0": 0.1}},
        {"psi": "warn", "new_share": "warn", "mean_shift": "ok"}, is_new=True,
    )  # fmt: skip
    assert found.describe("warn") == ["psi 0.124 (num_events_7d)", "new_share 0.500"]
    assert found.describe("fail") == []


def test_a_sample_is_a_share_of_the_larger_snapshot() -> None:
    few, many = replace(snapshot(D1), num_users=200), replace(snapshot(D2), num_users=400)
    quarter = 2**20 // 4
    assert [_num_buckets(100, few, many), _num_buckets(100, many, few)] == [quarter, quarter]
    assert _num_buckets(500, few, many) == 2**20
    assert _num_buckets(1, replace(few, num_users=0), replace(few, num_users=0)) == 2**20


def test_a_limit_of_no_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean vanished_share"):
        config_of(tmp_path, drift={"fail": {"vanished_shares": 0.1}})

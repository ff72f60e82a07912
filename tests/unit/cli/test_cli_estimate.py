"""``userrep estimate``: figures for a size, from runs that are recorded. None of it needs Spark."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Userrep, config_file, with_tables
from tests.support.embedding_tables import snapshot
from userrep.operations import cost_plan
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS, TILE_DAYS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)
SIZE = ("--users", "2000", "--events-per-day", "50000")
STAGES = {  # seconds of tasks, for 1,000 events and 2 users
    "build_activity_tiles": 36.0,
    "refresh_user_features": 3.6,
    "embed_users": 0.36,
    "publish_snapshot": 0.036,
    "train_item_vectors": 36.0,
    "build_user_features": 0.0,
    "train_autoencoder": 0.0,
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a run of each stage, and tables of 4,000 bytes each."""
    tables = FileTables(None, str(tmp_path / "root"))
    record_snapshots(tables, [snapshot(date(2024, 5, 1))])
    outputs = {"num_events": 1_000, "spark": {"shuffle_bytes": 1e6}}
    run = {"run_id": "r", "outcome": "done", "reason": "", "started_at": NOW, "seconds": 1.0, "num_rows": 2}
    run |= {"inputs": "{}", "config_hash": "", "code_hash": ""}
    runs = []
    for stage, seconds in STAGES.items():
        outputs["spark"] = {"task_seconds": seconds, "shuffle_bytes": 1e6}
        runs.append(run | {"stage": stage, "outputs": json.dumps(outputs)})
    tables.add(JOB_RUNS, runs)
    day = {"event_date": date(2024, 5, 1), "revision": 1, "fingerprint": "", "content": "", "num_events": 400}
    tables.add(TILE_DAYS, [day | {"num_tiles": 300, "num_rejected": 0, "built_at": NOW}])
    monkeypatch.setattr(FileTables, "num_bytes", lambda *_: 4_000)
    return config_file(tmp_path, windows_days=[2, 7])


def planned(userrep: Userrep, config: Path, *options: str) -> dict[str, Any]:
    answer = userrep("estimate", "--config", config, *SIZE, *options, "--json")
    assert (answer.code, answer.err) == (0, "")
    found: dict[str, Any] = json.loads(answer.out)
    return found


def test_a_plan_has_the_work_the_storage_and_what_is_saved(userrep: Userrep, no_spark: None, config: Path) -> None:
    found = planned(userrep, config, "--consumers", "4", "--core-hour-price", "1", "--gb-month-price", "0")
    work = {of["stage"]: of["core_hours"] for of in found["work"]}
    assert work == pytest.approx(
        {
            "build_activity_tiles": 0.5,
            "refresh_user_features": 1.0,
            "embed_users": 0.1,
            "publish_snapshot": 0.01,
            "train_item_vectors": 10 / 28,
            "build_user_features": 0,
            "train_autoencoder": 0,
        }
    )
    assert found["summary"]["own_core_hours"] == pytest.approx(4 * 1.5)
    assert found["summary"]["shared_price"] == pytest.approx(30 * (1.61 + 10 / 28))


@pytest.mark.parametrize(
    ("options", "history_days", "days"),
    [((), None, 14), ((), 0, 7), ((), 100, 100), (("--log-days", "3"), None, 3)],
)
def test_tiles_are_kept_for_the_longest_window_unless_days_are_given(
    userrep: Userrep, no_spark: None, config: Path, options: tuple[str, ...], history_days: int | None, days: int
) -> None:
    history = "null" if history_days is None else str(history_days)
    found = planned(userrep, config, *options, "--set", f"history_days={history}")
    tiles = next(of for of in found["storage"] if of["table"] == "user_item_days")
    assert (tiles["bytes_each"], tiles["gb"]) == (10, pytest.approx(10 * 50_000 * days / 1e9))


def test_each_option_reaches_the_size_that_is_planned_for(
    userrep: Userrep, no_spark: None, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[cost_plan.Size] = []
    real = cost_plan.plan_for

    def recording(tables: Tables, config: Any, size: cost_plan.Size) -> cost_plan.CostPlan:
        sizes.append(size)
        return real(tables, config, size)

    monkeypatch.setattr(cost_plan, "plan_for", recording)
    planned(userrep, config)
    options = "--consumers 2 --log-days 3 --retrain-days 4 --core-hour-price 5 --gb-month-price 6"
    planned(userrep, config, *options.split())
    assert sizes == [
        cost_plan.Size(2000, 50000, 5, 14, 28, 0.05, 0.023),
        cost_plan.Size(2000, 50000, 2, 3, 4, 5.0, 6.0),
    ]


def test_a_plan_is_printed_as_three_tables_and_a_sum(userrep: Userrep, no_spark: None, config: Path) -> None:
    lines = userrep(
        "estimate", "--config", config, *SIZE, "--consumers", "4", "--core-hour-price", "1"
    ).out.splitlines()
    tables = "\n".join(lines[:-1]).split("\n\n")
    assert [table.splitlines()[0].split()[0] for table in tables] == ["stage", "table", "setup"]
    assert tables[0].splitlines()[1].split() == ["build_activity_tiles", "event", "0.500", "0.050"]
    assert tables[1].splitlines()[1].split() == ["user_item_days", "event", "10.0", "0.007"]
    one, own = (line.split() for line in tables[2].splitlines()[1:])
    assert (one[:3], own[:4]) == (["one", "embedding", "1.967"], ["4", "separate", "pipelines", "6.000"])
    assert lines[-1] == "saved: 67% of core hours, 67% of the price"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--users", "0"), "--users 0: must be a whole number of at least 1, such as 50000, 50k, 2.5M or 1G."),
        (("--users", "0.5"), "--users 0.5: must be a whole number of at least 1"),
        (("--users", "1.0005k"), "--users 1.0005k: must be a whole number of at least 1"),
        (("--users", "50m"), "--users 50m: must be a whole number of at least 1"),
        (("--events-per-day", "-1"), "--events-per-day -1: must be a whole number of at least 1"),
        (("--consumers", "0"), "Invalid value for '--consumers': Input should be greater than or equal to 1"),
        (
            ("--gb-month-price", "-1"),
            "Invalid value for '--gb-month-price': Input should be greater than or equal to 0",
        ),
        (("--core-hour-price", "inf"), "estimate: prices must be finite, got inf and 0.023"),
    ],
)
def test_an_invalid_size_is_refused(
    userrep: Userrep, no_spark: None, config: Path, options: tuple[str, ...], said: str
) -> None:
    answer = userrep("estimate", "--config", config, *SIZE, *options)
    assert (answer.code, answer.out, len(answer.faults)) == (2, "", 1)
    assert answer.faults[0].startswith(said)


def test_a_size_may_end_in_k_m_or_g(userrep: Userrep, no_spark: None, config: Path) -> None:
    def summary(users: str, events: str) -> object:
        return json.loads(userrep("estimate", "-c", config, "--users", users, "--events-per-day", events, "--json").out)

    assert summary("50k", "2.5M") == summary("50000", "2500000")
    assert summary("1M", "1.5G") == summary("1000k", "1500M")
    assert summary("1M", "1.5G") != summary("1M", "1.6G")


def test_the_old_name_of_the_command_works_the_same(userrep: Userrep, no_spark: None, config: Path) -> None:
    assert userrep("plan", "--config", config, *SIZE, "--json") == userrep("estimate", "-c", config, *SIZE, "--json")
    assert "plan" not in [line.split()[0] for line in userrep("--help").out.splitlines() if line.startswith("  ")]


def test_without_recorded_runs_the_missing_stages_are_named(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    config = with_tables(config_file(tmp_path))
    answer = userrep("estimate", "--config", config, *SIZE)
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults[0].startswith(f"estimate: no run of {', '.join(STAGES)} is recorded in {tmp_path / 'root'}")

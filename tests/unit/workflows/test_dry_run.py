"""``--dry-run`` of runs: nothing is written, no session is started, and errors are those of the run."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.support.builders import event, write_rows
from tests.support.command_line import Userrep, config_file
from userrep.workflows.dry_run import dry_run_lines

pytestmark = pytest.mark.fast

FIRST, LAST = date(2024, 1, 1), date(2024, 5, 31)
STAGES = [
    "take_inventory", "build_activity_tiles", "train_item_vectors", "build_user_features", "train_autoencoder",
    "embed_users", "publish_snapshot", "promote",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A log of 152 days, two events on each, in two files; no root."""
    days = [FIRST + timedelta(days=k) for k in range((LAST - FIRST).days + 1)]
    for name, part in (("a", days[:100]), ("b", days[100:])):
        rows = [event("u", "i", f"{day} {hour}:00:00") for day in part for hour in (10, 12)]
        write_rows(tmp_path / "events" / f"{name}.parquet", rows)
    return config_file(tmp_path, windows_days=[7], quality={"self_check": False})


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_first_pipeline_is_planned_from_footers_alone(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    answer = userrep("pipeline", "--config", config, "--as-of", "2024-06-01", "--dry-run", "--json")
    assert (answer.code, answer.err, tree(tmp_path)) == (0, "", before)
    plan = json.loads(answer.out)
    sizes = sum((tmp_path / "events" / f"{name}.parquet").stat().st_size for name in "ab")
    assert plan["log"]["new"] == plan["log"]["to_read"] == {"files": 2, "bytes": sizes}
    assert (len(plan["log"]["days_to_build"]), plan["log"]["days_unknown"]["files"]) == (152, 0)
    assert [(stage["stage"], stage["outcome"], stage["seconds"]) for stage in plan["stages"]] == [
        (stage, "run", None) for stage in STAGES
    ]
    text = userrep("pipeline", "--config", config, "--as-of", "2024-06-01", "--dry-run").out.splitlines()
    assert text[0] == "dry run of pipeline for as-of date 2024-06-01; nothing was written"
    assert text[2].startswith("to build: 152 days: 2024-01-01 to 2024-05-31, from 2 files (")
    assert text[-1] == f"not included, because no earlier run is recorded: {', '.join(STAGES)}"


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (
            ("pipeline", "--as-of", "2024-07-01"),
            "as-of date 2024-07-01: outside the log, whose days are 2024-01-01 to 2024",
        ),
        (
            ("daily", "--as-of", "2024-06-01"),
            "no usable space. Run `userrep pipeline --as-of DATE --config C`",
        ),
        (
            ("backfill", "--from", "2023-01-01", "--to", "2024-02-01"),
            "as-of date 2023-01-01: outside the log, whose days",
        ),
        (("backfill", "--stale"), "no usable space. Run `userrep pipeline --as-of DATE --config C`"),
    ],
)
def test_what_the_run_would_refuse_is_refused(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path, command: tuple[str, ...], fault: str
) -> None:
    before = tree(tmp_path)
    answer = userrep(*command, "--config", config, "--dry-run")
    assert (answer.code, answer.out, tree(tmp_path)) == (2, "", before)
    assert answer.faults[0].replace(str(config), "C").startswith(fault)


def test_the_days_of_unread_text_are_not_guessed(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.json").write_text('{"user_id": "u", "item_id": "i", "event_at": "2024-05-01"}\n')
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    events = {"path": str(tmp_path / "events"), "format": "json", "columns": columns}
    answer = userrep("pipeline", "--config", config_file(tmp_path, events=events), "--as-of", "2024-06-01", "--dry-run")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults[0].startswith("--dry-run: the days of the log are not known before its files are read")


def test_figures_of_a_stage_that_runs_twice_are_added_up() -> None:
    stage = {"stage": "embed_users", "outcome": "run", "reason": "", "seconds": 1.0, "core_seconds": None}
    sized = {"files": 1, "bytes": 2048}
    log = {"first_day": FIRST, "last_day": LAST, "days_to_build": [], "new": sized, "to_read": sized}
    lines = dry_run_lines({"command": "daily", "as_of": LAST, "stages": [stage], "log": log | {"days_unknown": sized}})
    assert lines[3] == "days not known before a read: 1 file (2.0 kB)"
    assert lines[-1] == "expected: 1 s, 0 core seconds of Spark's tasks, as in earlier runs"

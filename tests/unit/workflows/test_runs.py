"""The record of stages: a row for each, with its inputs, its outcome and what it made."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.builders import config_of
from userrep.errors import GateRefusedError
from userrep.operations.stage_rates import Prediction
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EXPORTS, JOB_RUNS, TOMBSTONES
from userrep.store.tables import Tables
from userrep.workflows.run_plan import PlannedStage
from userrep.workflows.runs import Runs, StageRun

pytestmark = pytest.mark.fast

# A session of Spark Connect counts no work, and so none is needed for a record.
REMOTE = cast(Any, type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})())
AN_EXPORT = {"path": "out", "what": "embeddings", "as_of": date(2024, 5, 1), "exported_at": datetime(2024, 5, 1)}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(REMOTE, str(tmp_path / "root"))


@pytest.fixture
def runs(tables: Tables, tmp_path: Path, lines: list[str]) -> Runs:
    return Runs(tables, config_of(tmp_path))


def recorded(tables: Tables) -> list[dict[str, Any]]:
    return [row.asDict() for row in sorted(tables.ledger(JOB_RUNS), key=lambda row: row.started_at)]


def test_a_stage_is_recorded_with_the_versions_of_its_inputs_when_it_began(
    runs: Runs, tables: Tables, lines: list[str]
) -> None:
    tables.add(EXPORTS, [AN_EXPORT])
    began = tables.version(EXPORTS)
    before = datetime.now(UTC).replace(tzinfo=None)
    with runs.stage("embed_users", [EXPORTS, TOMBSTONES]) as run:
        tables.add(EXPORTS, [AN_EXPORT])
        run.num_rows, run.reason, run.outputs = 1234, "2 dates", {"day": date(2024, 5, 2)}
    (row,) = recorded(tables)
    assert before <= row.pop("started_at") <= datetime.now(UTC).replace(tzinfo=None)
    assert 0 < row.pop("seconds") < 60
    assert len(row.pop("config_hash")) == len(row.pop("code_hash")) == 10
    assert row == {
        "run_id": runs.run_id,
        "stage": "embed_users",
        "outcome": "done",
        "reason": "2 dates",
        "num_rows": 1234,
        "inputs": json.dumps({"exports": began, "tombstones": 0}),
        "outputs": json.dumps({"day": "2024-05-02", "spark": {}}),
    }
    assert tables.version(EXPORTS) == began + 1
    assert lines == ["embed_users: 1,234 rows in 0 s (2 dates)"]
    assert [stage.stage for stage in runs.stages] == ["embed_users"]


def test_each_stage_is_recorded_with_what_was_expected_of_it_in_order_and_with_its_command(
    runs: Runs, tables: Tables
) -> None:
    def planned(stage: str, seconds: float | None) -> PlannedStage:
        return PlannedStage(stage, seconds != 0, "", Prediction(seconds, seconds))

    runs.command = "backfill"
    runs.planned = [planned("embed_users", 5.0), planned("publish_snapshot", None), planned("embed_users", 0)]
    for _ in range(2):
        with runs.stage("embed_users"):
            pass
    with pytest.raises(ValueError, match="boom"), runs.stage("publish_snapshot"):
        raise ValueError("boom")
    with runs.stage("promote") as run:
        run.skip("done before")
    outputs = [json.loads(row["outputs"]) for row in recorded(tables)]
    assert [output.get("predicted") for output in outputs] == [
        {"outcome": "done", "seconds": 5.0, "core_seconds": 5.0},
        {"outcome": "skipped", "seconds": 0, "core_seconds": 0},
        {"outcome": "done", "seconds": None, "core_seconds": None},
        None,
    ]
    assert {output["command"] for output in outputs} == {"backfill"}
    assert runs.stages[0].outputs["predicted"] == outputs[0]["predicted"]


def test_a_skipped_stage_is_recorded_with_the_reason_and_without_work_of_spark(
    runs: Runs, tables: Tables, lines: list[str]
) -> None:
    with runs.stage("embed_users") as run:
        run.skip("snapshots are up to date")
    (row,) = recorded(tables)
    assert (row["outcome"], row["reason"], row["outputs"]) == ("skipped", "snapshots are up to date", "{}")
    assert lines == ["embed_users: up to date (snapshots are up to date)"]
    assert runs.stages == [StageRun("embed_users", "skipped", "snapshots are up to date", 0, row["seconds"], {})]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GateRefusedError("gates: too few users\nmore"), "gates: too few users"),
        (ValueError("x" * 501), "x" * 500),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(143), "interrupted"),
    ],
)
def test_a_failed_stage_is_recorded_with_the_first_line_of_its_error_and_the_error_goes_on(
    runs: Runs, tables: Tables, lines: list[str], error: BaseException, reason: str
) -> None:
    def fail() -> None:
        with runs.stage("embed_users") as run:
            run.num_rows = 7
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    (row,) = recorded(tables)
    assert (row["outcome"], row["reason"], row["num_rows"]) == ("failed", reason, 7)
    assert (runs.stages, lines) == ([], [])


def test_an_error_of_the_record_does_not_hide_that_of_the_stage(
    runs: Runs, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(FileTables, "add", no_room)
    with pytest.raises(GateRefusedError, match="too few users"), runs.stage("embed_users"):
        raise GateRefusedError("too few users")
    with pytest.raises(OSError, match="No space left"), runs.stage("embed_users"):
        pass


def test_runs_of_one_configuration_have_its_hash(tables: Tables, tmp_path: Path) -> None:
    configs = [config_of(tmp_path), config_of(tmp_path), config_of(tmp_path, model={"latent_dim": 8})]
    for config in configs:
        with Runs(tables, config).stage("s"):
            pass
    first, second, other = (row["config_hash"] for row in recorded(tables))
    assert first == second != other


def test_long_and_new_stages_of_a_run_are_reported_when_they_begin(
    runs: Runs, tables: Tables, lines: list[str], tmp_path: Path
) -> None:
    seconds = {"build_user_features": 41.7, "promote": 0.2}
    row = {"run_id": "r1", "outcome": "done", "reason": "", "num_rows": 0, "inputs": "{}", "outputs": "{}"}
    row |= {"started_at": datetime(2024, 5, 1), "config_hash": "c", "code_hash": "d"}
    tables.add(JOB_RUNS, [row | {"stage": stage, "seconds": taken} for stage, taken in seconds.items()])
    with runs.stage("embed_users"):
        pass
    assert len(lines) == 1  # nothing was announced
    runs.expected = ["build_user_features", "embed_users", "promote"]
    for stage in ("build_user_features", "promote", "maintain_tables"):
        with runs.stage(stage):
            pass
    assert lines[1] == "stage 1 of 3: build_user_features (42 s last time)"
    assert [line.split(":")[0] for line in lines[2:]] == ["build_user_features", "promote", "maintain_tables"]
    again = Runs(tables, config_of(tmp_path))
    again.expected = ["train_autoencoder"]
    with again.stage("train_autoencoder"):
        assert lines[-1] == "stage 1 of 1: train_autoencoder (first run)"

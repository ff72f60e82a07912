"""What runs say on stderr, for people and as JSON; one id through all stages of a run; what jobs do in a retraining."""

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.builders import config_of
from userrep import logs
from userrep.cli import main as cli
from userrep.errors import GateRefusedError, UsageError
from userrep.ids import checked_name
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables
from userrep.workflows import data_stages, jobs, space_stages
from userrep.workflows.runs import Runs

pytestmark = pytest.mark.default

logger = logging.getLogger("userrep.tests")

Captured = pytest.CaptureFixture[str]


def tables_in(folder: Path) -> Tables:
    """Open tables of which only ledgers are asked: no session is needed."""
    return FileTables(cast(Any, object()), str(folder))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """The stages of a run, whose record needs no Spark."""
    monkeypatch.setattr("userrep.workflows.runs.SparkWork", lambda _: SimpleNamespace(found=dict))
    return Runs(tables_in(tmp_path), config_of(tmp_path))


def objects(capsys: Captured) -> list[dict[str, Any]]:
    """Return the lines on stderr, each of which must be an object."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def two_stages(runs: Runs) -> None:
    with runs.stage("build_activity_tiles") as run:
        thread = threading.Thread(target=logger.info, args=("as ranks say it,\nfrom a thread",))
        thread.start()
        thread.join()
        run.num_rows, run.reason = 1200, "2 days"
    with pytest.raises(GateRefusedError), runs.stage("publish_snapshot"):
        raise GateRefusedError("gates: too few users\nmore of it")
    logger.info("between stages")


def test_json_lines_name_run_and_stage_and_a_stage_s_end_has_its_figures(
    runs: Runs, capsys: Captured, monkeypatch: pytest.MonkeyPatch, log_to_stderr: Callable[[], None]
) -> None:
    monkeypatch.setenv("USERREP_LOG", "json")
    log_to_stderr()
    two_stages(runs)
    said, done, refused, between = objects(capsys)
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["time"]) for line in (said, done, refused))
    assert said.keys() == {"time", "level", "run_id", "stage", "message"}
    assert (said["level"], said["run_id"], said["stage"]) == ("info", runs.run_id, "build_activity_tiles")
    assert said["message"] == "as ranks say it,\nfrom a thread"
    assert done["message"] == "build_activity_tiles: 1,200 rows in 0 s (2 days)"
    assert (done["outcome"], done["num_rows"], done["reason"]) == ("done", 1200, "2 days")
    assert 0 <= done["seconds"] < 5
    assert (refused["stage"], refused["outcome"]) == ("publish_snapshot", "failed")
    assert refused["reason"] == "gates: too few users"
    assert (between["stage"], between["message"]) == (None, "between stages")


def test_people_read_lines_and_an_error_once(runs: Runs, capsys: Captured, log_to_stderr: Callable[[], None]) -> None:
    log_to_stderr()
    two_stages(runs)
    said = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in said] == [
        "as ranks say it,", "from a thread", "build_activity_tiles: 1,200 rows in 0 s (2 days)", "between stages"
    ]  # fmt: skip


def test_runs_have_ids_of_their_own_unless_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_id() -> str:
        return Runs(tables_in(tmp_path), config_of(tmp_path)).run_id

    first, second = run_id(), run_id()
    assert first != second
    assert checked_name(first, "run id") == first
    monkeypatch.setenv("USERREP_RUN_ID", "nightly-20240602")
    assert (run_id(), run_id()) == ("nightly-20240602", "nightly-20240602")
    logs.begin_run("a-job-s")
    assert (run_id(), run_id()) == ("a-job-s", "a-job-s")
    logs.end_run()
    monkeypatch.setenv("USERREP_RUN_ID", "../x")
    with pytest.raises(UsageError, match=r"run id '../x' is not a valid name: use 1 to 64 of a-z"):
        run_id()
    with pytest.raises(UsageError, match="run id 'A B' is not a valid name"):
        logs.begin_run("A B")
    monkeypatch.setenv("USERREP_LOG", "xml")
    with pytest.raises(UsageError, match="USERREP_LOG is 'xml'; use json or text"):
        logs.begin_run("a-job-s")
    logs.end_run()


def test_lines_have_their_level_their_prefix_and_their_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, log_to_stderr: Callable[[], None]
) -> None:
    def log_three() -> list[str]:
        log_to_stderr()
        log_to_stderr()  # prints no line twice
        with logs.logged_with(prefix="self-check: "):
            logger.warning("a peer is ahead")
        try:
            raise ValueError("odd")
        except ValueError:
            logger.exception("it failed")
        return capsys.readouterr().err.splitlines()

    warned, failed, *trace = log_three()
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: self-check: a peer is ahead", warned)
    assert (failed, trace[-1]) == ("userrep: it failed", "ValueError: odd")
    monkeypatch.setenv("USERREP_LOG", "json")
    warned, failed = log_three()
    assert (json.loads(warned)["level"], json.loads(warned)["message"]) == ("warning", "self-check: a peer is ahead")
    assert json.loads(failed)["message"].endswith("ValueError: odd")


def test_a_run_leaves_the_logger_as_it_was_and_lines_of_a_closed_terminal_are_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, log_to_stderr: Callable[[], None]
) -> None:
    userreps = logging.getLogger("userrep")
    before = userreps.level, userreps.propagate, userreps.handlers[:]
    logs.begin_run("a-run")
    logs.end_run()
    assert (userreps.level, userreps.propagate, userreps.handlers) == before
    log_to_stderr()
    logs.begin_run("a-run")
    logs.end_run()
    logger.info("still printed")
    assert capsys.readouterr().err.endswith(" still printed\n")
    with monkeypatch.context() as patch:
        closed = io.StringIO()
        patch.setattr(sys, "stderr", closed)
        log_to_stderr()
        closed.close()
        logger.info("lost")


@pytest.fixture
def of_pipeline(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let jobs work on a pipeline that is none; return what they ask of it."""
    asked: list[Any] = []
    old, new = SimpleNamespace(space_id="s1"), SimpleNamespace(space_id="s2")

    def built(_: Any, as_ofs: list[date], **more: Any) -> None:
        asked.append((as_ofs, more))
        with runs.stage("build_user_features") as run:
            run.num_rows = 3

    schedule = SimpleNamespace(
        as_of=date(2024, 6, 2),
        usable_space=old,
        feature_dates=lambda space: [date(2024, 6, 2)] if space else [date(2024, 4, 1)],
        sampled_dates=lambda space: [] if space else [date(2024, 4, 1)],
        space_to_use=lambda: old,
        unfinished_candidate=lambda: new,
        snapshot_dates=lambda space: [date(2024, 6, int(space.space_id[1:]))],  # the 1st of s1, the 2nd of s2
    )
    pipeline = SimpleNamespace(
        lease=lambda _: nullcontext(),
        schedule=schedule,
    )
    monkeypatch.setattr(data_stages, "build_user_features", built)
    monkeypatch.setattr(data_stages, "train_item_vectors", lambda _, as_ofs: asked.append(as_ofs))
    monkeypatch.setattr(space_stages, "embed_users", lambda _, space, as_ofs: asked.append((space.space_id, as_ofs)))
    monkeypatch.setattr(
        space_stages, "publish_snapshots", lambda _, space, as_ofs: asked.append((space.space_id, as_ofs))
    )
    monkeypatch.setattr(space_stages, "promote_first", lambda _, space: asked.append(space.space_id))
    monkeypatch.setattr("userrep.cli.pipeline._stages", lambda *_, **__: None)
    monkeypatch.setattr("userrep.cli.pipeline.context_for_run", lambda *_: pipeline)
    return asked


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, job: str, *arguments: str) -> int:
    """Call the job as its entry point does, with a configuration that is whole; return the exit code."""
    config = folder / "userrep.yaml"
    config.write_text(config_of(folder).model_dump_json(exclude_unset=True, by_alias=True))
    monkeypatch.setattr(sys, "argv", [f"{job}.py", "--config", str(config), *arguments])
    try:
        cli.main("run", job)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_retraining_s_features_are_made_before_it_and_then_its_space_is_embedded_and_published(
    of_pipeline: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, tmp_path, "train_item_vectors", "--retrain") == 0
    assert call(monkeypatch, tmp_path, "build_user_features", "--retrain") == 0
    assert call(monkeypatch, tmp_path, "build_user_features") == 0
    night = date(2024, 6, 2)
    assert of_pipeline == [
        [date(2024, 4, 1)],
        ([date(2024, 4, 1)], {"sampled": [date(2024, 4, 1)], "force": [night]}),
        ([night], {"sampled": [], "force": [night]}),
    ]
    of_pipeline.clear()
    assert call(monkeypatch, tmp_path, "embed_users") == 0
    assert call(monkeypatch, tmp_path, "publish_snapshot") == 0
    assert of_pipeline == [("s2", [night]), ("s2", [night]), "s2"]


def test_a_job_takes_its_run_s_id_from_its_command_line_and_errors_are_objects_too(
    runs: Runs, of_pipeline: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("USERREP_LOG", "json")
    tables = tables_in(tmp_path)
    monkeypatch.setattr(
        "userrep.cli.pipeline.context_for_run",
        lambda *_: SimpleNamespace(lease=lambda _: nullcontext(), runs=Runs(tables, config_of(tmp_path))),
    )
    assert call(monkeypatch, tmp_path, "embed_users", "--run-id", "databricks-77", "--set", "modle=1") == 2
    (fault,) = objects(capsys)
    assert (fault["level"], fault["run_id"], fault["stage"]) == ("error", "databricks-77", None)
    assert "unknown key modle" in fault["message"]

    def night(pipeline: SimpleNamespace, name: str, *, retrain: bool) -> None:
        with pipeline.runs.stage("embed_users"):
            pass

    monkeypatch.setattr(jobs, "run_job", night)
    assert call(monkeypatch, tmp_path, "embed_users", "--run-id", "databricks-77") == 0
    assert [line["run_id"] for line in objects(capsys)] == ["databricks-77"]
    assert [row.run_id for row in tables_in(tmp_path).ledger(JOB_RUNS)] == ["databricks-77"]
    assert logs.this_run_id() != "databricks-77"

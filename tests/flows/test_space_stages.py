"""A training with its self-check, on a small generated log: what it sees, what it leaves behind, what it refuses."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from tests.support.command_line import Userrep, file_of
from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.evaluation import run_self_check as checks
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import artifact_folder, list_spaces
from userrep.store import schemas
from userrep.store.filesystem import exists
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import check_quality, train_autoencoder

pytestmark = pytest.mark.default

PEERS = {"untrained", "rfm_history", "pooled_longest", "raw", "pca"}


@pytest.fixture(scope="module")
def root(done: tuple[RunContext, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline's tables, to train on."""
    return shutil.copytree(str(done[1].root), tmp_path_factory.mktemp("self_check") / "root")


def pipeline(spark: SparkSession, log: Path, root: Path, **quality: object) -> RunContext:
    config = pipeline_config(log, root, quality=quality)
    return RunContext(config, spark, AS_OF)


def test_a_check_below_the_least_gain_is_refused_and_kept_for_the_training_that_follows(
    spark: SparkSession, log: Path, root: Path, userrep: Userrep, tmp_path: Path, lines: list[str]
) -> None:
    work = pipeline(spark, log, root, min_gain=9.0)
    before = list_spaces(work.tables)
    with pytest.raises(GateRefusedError, match=r"quality\.min_gain is 900\.0%\. No space was trained"):
        train_autoencoder(work)
    assert list_spaces(work.tables) == before
    assert any(line.startswith("next_item_7d ") for line in lines)

    lines.clear()
    work = pipeline(spark, log, root)
    space = train_autoencoder(work)
    assert "self-check: reusing the result of an earlier run" in lines
    found = load_artifact(artifact_folder(work.tables, space), space.content_hash).manifest.self_check
    assert found is not None
    assert work.self_check == found
    assert set(found.ahead) == PEERS
    assert set(found.values) == {
        "next_item_7d", "next_item_7d_new", "return_7d", "volume_7d", "next_categories_7d", "neighbours",
    }  # fmt: skip
    assert all(set(by_name) == {"embedding", *PEERS} for by_name in found.values.values())
    assert found.trained_until < min(found.test_as_ofs)
    assert max(found.test_as_ofs) + timedelta(days=7) <= space.trained_until
    assert found.values["next_item_7d"]["embedding"] > found.values["next_item_7d"]["rfm_history"]

    kept = work.tables.read(schemas.TRAINING_ROWS).select("space_id").distinct().collect()
    assert {row.space_id for row in kept} == {one.space_id for one in list_spaces(work.tables)}
    for leftover in (space.space_id, "s002-check"):
        assert not exists(f"{root}/artifacts/training/{leftover}")

    config = file_of(work.config, tmp_path)
    told = userrep("spaces", "list", "--config", config, "--json")
    assert [one["self_check"] and one["self_check"]["trained_until"] for one in json.loads(told.out)["spaces"]] == [
        None, str(found.trained_until),
    ]  # fmt: skip
    shown = userrep("spaces", "show", space.space_id, "--config", config).out
    assert "\n".join(found.lines) in shown


@pytest.mark.full  # tests/unit/spaces/test_create.py does the same to a training
def test_a_check_that_was_killed_goes_on_with_the_rows_and_the_training_that_are_there(
    spark: SparkSession,
    log: Path,
    done: tuple[RunContext, Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
) -> None:
    root = shutil.copytree(str(done[1].root), tmp_path / "root")
    work = pipeline(spark, log, root)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "check_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check_quality(work)
    assert exists(f"{root}/artifacts/training/s002-check/checkpoints")
    lines.clear()
    found = check_quality(pipeline(spark, log, root))
    assert found is not None
    assert "self-check: training rows: reusing those of the interrupted run" in lines
    assert not any("epoch 1/" in line for line in lines)  # the last checkpoint is the end of the training
    assert not exists(f"{root}/artifacts/training/s002-check/checkpoints")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_without_a_check_a_training_continues_and_reports_why_unless_a_gain_is_required(
    spark: SparkSession, log: Path, root: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def too_little(*_: object, **__: object) -> None:
        raise UsageError("none of the users has an event")

    monkeypatch.setattr(checks, "self_check", too_little)
    assert check_quality(pipeline(spark, log, root)) is None
    assert lines[-1].endswith("(no check: none of the users has an event)")
    with pytest.raises(GateRefusedError, match="is set, but the self-check failed: none of the users"):
        check_quality(pipeline(spark, log, root, min_gain=0.0))
    monkeypatch.setattr("userrep.workflows.schedule.plan_check", lambda *_, **__: None)
    assert check_quality(pipeline(spark, log, root)) is None
    assert "no check: the log is too short" in lines[-1]

"""A training with its self-check, on a small generated log: what it sees, what it leaves behind, what it refuses."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from tests.support.command_line import Userrep, file_of
from userrep import schemas
from userrep.config import Config
from userrep.errors import GateRefusedError
from userrep.model.artifact import load_artifact
from userrep.pipeline import Pipeline
from userrep.spaces.registry import artifact_folder, list_spaces
from userrep.storage import exists

pytestmark = pytest.mark.default

PEERS = {"untrained", "rfm_history", "pooled_longest", "raw", "pca"}


@pytest.fixture(scope="module")
def root(done: tuple[Pipeline, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline's tables, to train on."""
    return shutil.copytree(str(done[1].root), tmp_path_factory.mktemp("self_check") / "root")


def pipeline(spark: SparkSession, log: Path, root: Path, lines: list[str], **quality: object) -> Pipeline:
    config = pipeline_config(log, root, quality=quality)
    return Pipeline(config, spark, AS_OF, report=lines.append)


def test_a_check_below_the_least_gain_is_refused_and_kept_for_the_training_that_follows(
    spark: SparkSession, log: Path, root: Path, userrep: Userrep, tmp_path: Path
) -> None:
    lines: list[str] = []
    work = pipeline(spark, log, root, lines, min_gain=9.0)
    before = list_spaces(work.tables)
    with pytest.raises(GateRefusedError, match=r"quality\.min_gain is 900\.0%\. No space was trained"):
        work.train_autoencoder()
    assert list_spaces(work.tables) == before
    assert any(line.startswith("self-check: next_item_7d: embedding ") for line in lines)

    lines.clear()
    work = pipeline(spark, log, root, lines)
    space = work.train_autoencoder()
    assert "self-check: the result of an earlier run is used" in lines
    found = load_artifact(artifact_folder(work.config, space), space.content_hash).manifest.self_check
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
    for leftover in (space.space_id, f"{space.space_id}-check"):
        assert not exists(f"{root}/artifacts/training/{leftover}")

    config = file_of(work.config, tmp_path)
    told = userrep("spaces", "list", "--config", config, "--json")
    assert [one["self_check"] and one["self_check"]["trained_until"] for one in json.loads(told.out)["spaces"]] == [
        None, str(found.trained_until),
    ]  # fmt: skip
    shown = userrep("spaces", "show", space.space_id, "--config", config).out
    assert f"self-check, trained until {found.trained_until}: {found.summary}" in shown

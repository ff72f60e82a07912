"""Explanations in a report, on a root with planted tastes. None of it needs Spark."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Userrep, file_of
from tests.support.explained_world import NOW, NUM_USERS, World, explained_world
from userrep.errors import UsageError
from userrep.report.explained import explanation_facts
from userrep.spaces.consumer_model import ConsumerModel
from userrep.store.schemas import JOB_RUNS
from userrep.workflows.segments import write_segments

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("explained"))


def test_inputs_models_and_the_newest_segments_in_reach_are_explained(world: World, tmp_path: Path) -> None:
    model = ConsumerModel(weights=[1.0] * world.z_ND.shape[1], space_id="s001-a")
    bare = explanation_facts(world.tables, world.config, world.space, world.snapshot, {})
    assert (bare.segments, bare.segmented, bare.models) == ([], None, {})
    for name, num_segments in (("kept", 4), ("cut off", 3), ("gone", 5)):
        write_segments(
            world.tables, world.config, world.space, world.snapshot, str(tmp_path / name), num_segments=num_segments
        )
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "cut off" / "_manifest.json").write_text('{"what": "segments", "state": "incomplete"}')
    found = explanation_facts(world.tables, world.config, world.space, world.snapshot, {"m.json": model})
    assert found.inputs is not None
    assert found.inputs.num_users == NUM_USERS
    assert found.models["m.json"].unexplained == pytest.approx(0, abs=0.01)
    assert found.segmented == world.snapshot.snapshot_id
    assert [each["segment"] for each in found.segments] == ["s01", "s02", "s03", "s04"]
    assert sum(each["num_users"] for each in found.segments) == NUM_USERS


def test_what_cannot_be_read_is_named_and_a_model_of_another_space_refused(world: World) -> None:
    other = world.config.model_copy(update={"users": None})
    found = explanation_facts(world.tables, other, world.space, world.snapshot, {})
    assert found.inputs is None
    assert "s001-a has lineage" in (found.fault or "")
    model = ConsumerModel(weights=[1.0], space_id="s009-x")
    with pytest.raises(UsageError, match="trained on space s009-x, not on s001-a"):
        explanation_facts(world.tables, world.config, world.space, world.snapshot, {"m.json": model})


def test_the_page_explains_the_models_that_are_named(
    userrep: Userrep, no_spark: None, world: World, tmp_path: Path
) -> None:
    run = {"run_id": "r1", "stage": "embed_users", "outcome": "done", "reason": "", "started_at": NOW, "seconds": 1.0,
           "num_rows": 1, "inputs": "{}", "outputs": "{}", "config_hash": "c", "code_hash": "h"}  # fmt: skip
    world.tables.add(JOB_RUNS, [run])
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"weights": [1.0] * world.z_ND.shape[1], "space_id": "s001-a"}))
    out = tmp_path / "report.html"
    config = file_of(world.config, tmp_path)
    answer = userrep("report", "--config", config, "--out", out, "--model", model, "--json")
    assert answer.code == 0
    figures = json.loads(answer.out)["explanation"]
    assert {block["block"] for block in figures["inputs"]["blocks"]} == {block.name for block in world.layout.blocks}
    assert f"What drives the score of {model}" in out.read_text()
    assert not [user_id for user_id in world.user_ids if user_id in out.read_text()]

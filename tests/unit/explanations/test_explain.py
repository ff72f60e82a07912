"""Explanations of a space and of models, on a root with planted tastes. None of it needs Spark."""

import numpy as np
import pytest

from tests.support.explained_world import NUM_USERS, TASTES, World, explained_world
from userrep.errors import UsageError
from userrep.explanations import explain
from userrep.explanations.explain import explain_model, explain_space
from userrep.spaces.consumer_model import ConsumerModel

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("explained"))


def model_of(world: World, target_N: np.ndarray) -> ConsumerModel:
    """Return the least-squares model of a number per user on the vectors."""
    design_NA = np.hstack([world.z_ND, np.ones((len(target_N), 1))]).astype(np.float64)
    solved_A = np.linalg.lstsq(design_NA, target_N, rcond=None)[0]
    return ConsumerModel(weights=solved_A[:-1].tolist(), intercept=float(solved_A[-1]), space_id="s001-a")


def test_every_block_of_a_space_is_read_from_a_sample_of_its_snapshot(world: World) -> None:
    found = explain_space(world.tables, world.config, world.space, world.snapshot)
    assert (found.space_id, found.snapshot_id, found.num_users) == ("s001-a", world.snapshot.snapshot_id, NUM_USERS)
    assert 0.1 * NUM_USERS < found.num_held_out < 0.3 * NUM_USERS
    assert [block.block for block in found.blocks] == [block.name for block in world.layout.blocks]
    assert {block.block: block.num_users for block in found.blocks}["behaviour_7d"] == NUM_USERS


def test_a_score_built_from_one_block_is_attributed_to_it(world: World) -> None:
    for name in ("num_events_7d", "attribute_country"):
        target_N = world.x_NF[:, world.part(name)].astype(np.float64)[:, 0]
        model = model_of(world, target_N)
        found = explain_model(world.tables, world.config, world.space, world.snapshot, model)
        assert next(iter(found.shares)) == name
        assert found.shares[name] == pytest.approx(1, abs=0.02)
        assert sum(found.shares.values()) + found.unexplained == pytest.approx(1)
        assert (found.mean, found.deviation) == pytest.approx((target_N.mean(), target_N.std()), rel=1e-3, abs=1e-3)


def test_the_items_of_a_taste_raise_the_score_of_a_model_of_that_taste(world: World) -> None:
    for number, taste in enumerate(TASTES):
        model = model_of(world, np.where(world.taste_N == number, 1.0, 0.0))
        found = explain_model(world.tables, world.config, world.space, world.snapshot, model)
        assert found.labels is not None
        raising = [each.label for each in found.labels if each.effect > 0]
        assert raising[0].startswith(taste) or raising[0].endswith(taste)
        assert not {"large", "small"} & {each.label for each in found.labels}
        lowering = " ".join(each.label for each in found.labels if each.effect < 0)
        assert taste not in lowering
        assert all(other in lowering for other in TASTES if other != taste)


def test_a_model_of_another_space_or_of_more_than_the_vector_is_refused(world: World) -> None:
    model = model_of(world, world.taste_N.astype(float))
    other = model.model_copy(update={"space_id": "s002-b"})
    with pytest.raises(UsageError, match=r"trained on space s002-b, not on s001-a\. Vectors of two spaces cannot be"):
        explain_model(world.tables, world.config, world.space, world.snapshot, other)
    wider = model.model_copy(update={"weights": [*model.weights, 1.0]})
    with pytest.raises(UsageError, match=r"has 21 weights, but vectors of space s001-a have 20 numbers\. Name"):
        explain_model(world.tables, world.config, world.space, world.snapshot, wider)


def test_without_texts_of_items_there_are_no_labels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "read_item_labels", lambda *_: None)
    found = explain_model(
        world.tables, world.config, world.space, world.snapshot, model_of(world, world.taste_N.astype(float))
    )
    assert found.labels is None
    assert found.shares["behaviour_7d"] > 0.5

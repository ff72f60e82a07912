"""The sample of users with vectors and features of the same date."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from tests.support.explained_world import AS_OF, NUM_USERS, World, explained_world
from userrep.errors import UsageError
from userrep.explanations.sampled_users import sample_users
from userrep.sources.tombstones import add_tombstones

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("sampled"))


def test_vectors_and_features_are_of_the_same_users(world: World) -> None:
    found = sample_users(world.tables, world.config, world.space, world.snapshot)
    assert len(found) == NUM_USERS
    place = {user_id: k for k, user_id in enumerate(world.user_ids)}
    order = [place[user_id] for user_id in found.user_ids.to_pylist()]
    np.testing.assert_allclose(found.z_ND, world.z_ND[order], rtol=1e-5)
    assert found.features.column("user_id").to_pylist() == found.user_ids.to_pylist()
    x_NF = world.scaler.apply(world.layout, world.layout.raw(found.features))
    np.testing.assert_allclose(x_NF, world.x_NF[order], rtol=1e-5)


def test_a_smaller_sample_is_a_part_of_a_larger_one_with_the_same_users_held_out(world: World) -> None:
    snapshot = replace(world.snapshot, num_users=NUM_USERS)
    whole = sample_users(world.tables, world.config, world.space, snapshot)
    part = sample_users(world.tables, world.config, world.space, snapshot, most_users=NUM_USERS // 3)
    assert 0.25 * NUM_USERS < len(part) < 0.42 * NUM_USERS
    held_out = dict(zip(whole.user_ids.to_pylist(), whole.is_held_out_N.tolist(), strict=True))
    assert [held_out[user_id] for user_id in part.user_ids.to_pylist()] == part.is_held_out_N.tolist()


def test_a_date_without_features_and_another_lineage_are_refused(world: World) -> None:
    later = replace(world.snapshot, as_of=AS_OF + timedelta(days=7))
    with pytest.raises(UsageError, match=r"no features of 2024-05-08, .* Build them with `userrep run build_user_feat"):
        sample_users(world.tables, world.config, world.space, later)
    other = world.config.model_copy(update={"users": None})
    with pytest.raises(UsageError, match="space s001-a has lineage"):
        sample_users(world.tables, other, world.space, world.snapshot)


def test_erased_users_are_left_out_and_too_few_users_refused(world: World) -> None:
    add_tombstones(world.tables, world.user_ids[:3])
    found = sample_users(world.tables, world.config, world.space, world.snapshot)
    assert not {*world.user_ids[:3]} & {*found.user_ids.to_pylist()}
    add_tombstones(world.tables, world.user_ids[:-10])
    with pytest.raises(UsageError, match=r"10 users of snapshot .* fewer than 50\. Choose an --as-of with more users"):
        sample_users(world.tables, world.config, world.space, world.snapshot)

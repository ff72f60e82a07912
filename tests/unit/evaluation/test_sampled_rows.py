"""The rows of an evaluation: their order, their roles, and the users that there is no room for."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evaluation_world import PLAN, World, world
from userrep.errors import UsageError
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, TRAIN, VALID, _at_most, indices_in, num_by_role, rows_of

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def test_training_and_validation_have_no_user_in_common_and_no_test_date_lies_within_their_labels(
    planted: World,
) -> None:
    rows = planted.rows
    users = {role: set(rows.user_N[rows.role_N == role]) for role in (TRAIN, VALID)}
    assert users[TRAIN] & users[VALID] == set()
    assert 0.1 < len(users[VALID]) / len(rows.user_ids) < 0.3
    assert min(rows.as_of_N[rows.role_N == TEST]) >= max(rows.as_of_N[rows.role_N != TEST]) + PLAN.longest


def test_a_date_without_users_is_refused() -> None:
    features = pa.table({"user_id": ["u1"], "as_of": pa.array([PLAN.dates[0]], pa.date32())})
    with pytest.raises(
        UsageError, match=r"no sampled user is known at 2024-03-08, 2024-04-10, 2024-04-17\. Raise eval"
    ):
        rows_of(features, PLAN, seed=1)


def test_rows_are_put_in_the_order_of_users_and_dates_with_their_features() -> None:
    num_dates = len(PLAN.dates)
    shuffled = np.random.default_rng(0).permutation(3 * num_dates)
    user, day = np.divmod(shuffled, num_dates)
    features = pa.table({
        "feature": shuffled, "user_id": np.array(["ann", "bob", "zoe"])[user],
        "as_of": pa.array([PLAN.dates[d] for d in day], pa.date32()),
    })  # fmt: skip
    rows = rows_of(features, PLAN, seed=1)
    assert rows.features.column("feature").to_pylist() == list(range(3 * num_dates))
    assert rows.user_ids.to_pylist() == ["ann", "bob", "zoe"]
    assert rows.user_N.tolist() == np.repeat([0, 1, 2], num_dates).tolist()
    assert rows.as_of_N.tolist() == [*PLAN.dates] * 3
    assert (rows.role_N == TEST).tolist() == [day in PLAN.test for day in PLAN.dates] * 3


def test_which_users_validate_depends_on_the_seed_only() -> None:
    ids = [f"u{k}" for k in range(200)]

    def valid(users: list[str], seed: int) -> set[str]:
        days = pa.array([day for _ in users for day in PLAN.dates], pa.date32())
        rows = rows_of(pa.table({"user_id": [u for u in users for _ in PLAN.dates], "as_of": days}), PLAN, seed=seed)
        return {rows.user_ids[int(user)].as_py() for user in rows.user_N[rows.role_N == VALID]}

    whole = valid(ids, 1)
    assert valid(ids[50:], 1) == whole & set(ids[50:])
    assert valid(ids, 2) != whole


def test_rows_are_counted_by_role_and_those_without_one_are_not() -> None:
    roles = np.array([TRAIN, TEST, NO_ROLE, TRAIN, TEST, TEST, VALID], np.int8)
    assert num_by_role(roles) == {"train": 2, "valid": 1, "test": 3}


def test_places_are_indices_into_the_other_array_or_minus_one() -> None:
    assert indices_in(pa.array(["b", "x", None, "a"]), pa.array(["a", "b"])).tolist() == [1, -1, -1, 0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 45))
def test_users_with_the_largest_draws_go_whole_until_the_rows_fit(draws: list[int], max_rows: int) -> None:
    kept, limit = _at_most(pa.table({"draw": draws}), max_rows)
    found = kept.column("draw").to_pylist()
    assert found == [draw for draw in draws if draw <= limit]
    assert len(found) <= max_rows
    left_out = [draw for draw in draws if draw > limit]
    if left_out:  # the next user would not have had room for all of its rows
        assert len(found) + left_out.count(min(left_out)) > max_rows

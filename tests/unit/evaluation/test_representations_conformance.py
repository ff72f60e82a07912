"""What holds for every representation that folds a history in, on a planted world of two groups."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.support.evaluation_world import (
    NUM_GROUPED,
    NUM_GROUPED_ITEMS,
    PLAN,
    context_of,
    counts_of,
    events_of_groups,
    sample_of_groups,
)
from userrep.config import AlsVectors
from userrep.evaluation.metrics import Floats32
from userrep.evaluation.representation import Matrix
from userrep.evaluation.representations import nmf
from userrep.evaluation.representations.als import ItemFactors, folded_in
from userrep.evaluation.representations.nmf import SampledCounts

pytestmark = pytest.mark.fast

U, V = NUM_GROUPED, NUM_GROUPED_ITEMS
ALS = AlsVectors(kind="als", dim=8, regularization=0.5)
Describe = Callable[[csr_array], Floats32]


def fitted_nmf(sample: SampledCounts, seed: int) -> Describe:
    return partial(nmf.folded, nmf.factorized(sample.num_events_UV, seed=seed))


FITTED = {"nmf": fitted_nmf}


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[Describe, Floats32]]:
    sample = sample_of_groups(events_of_groups())
    fits = {name: fit(sample, 3) for name, fit in FITTED.items()}
    return {name: (describe, describe(sample.num_events_UV)) for name, describe in fits.items()}


@pytest.mark.parametrize("name", FITTED)
def test_users_lie_nearer_to_others_of_their_group(name: str, described: dict[str, tuple[Describe, Floats32]]) -> None:
    x_UD = described[name][1][:, :-1]
    seen, unseen = np.arange(U) < U // 2, np.arange(U) >= U // 2
    even_D, odd_D = (x_UD[seen & (np.arange(U) % 2 == group)].mean(axis=0) for group in (0, 1))
    score_U = (x_UD - (even_D + odd_D) / 2) @ (odd_D - even_D)
    assert ((score_U[unseen] > 0) == (np.arange(U)[unseen] % 2 == 1)).mean() > 0.95


@pytest.mark.parametrize("name", FITTED)
def test_the_same_seed_gives_the_same_bits(name: str, described: dict[str, tuple[Describe, Floats32]]) -> None:
    sample = sample_of_groups(events_of_groups())
    assert (FITTED[name](sample, 3)(sample.num_events_UV) == described[name][1]).all()


@pytest.mark.parametrize("name", FITTED)
def test_without_a_history_all_are_alike_and_the_flag_is_set(
    name: str, described: dict[str, tuple[Describe, Floats32]]
) -> None:
    describe, x_UD = described[name]
    assert (x_UD[:, -1] == 1).all()
    nobody_ND = describe(csr_array((3, V)))
    assert (nobody_ND[:, -1] == 0).all()
    assert (nobody_ND[0] == nobody_ND).all()
    assert not nobody_ND.any()


@pytest.mark.parametrize("name", FITTED)
def test_a_row_does_not_depend_on_the_rows_next_to_it(
    name: str, described: dict[str, tuple[Describe, Floats32]]
) -> None:
    describe, x_UD = described[name]
    some = [7, 2, 31]
    np.testing.assert_allclose(describe(csr_array(counts_of(events_of_groups())[some])), x_UD[some], atol=1e-3)


def representations_fitted(sample: SampledCounts) -> dict[str, Matrix]:
    item_ID = np.random.default_rng(0).normal(size=(V, ALS.dim)).astype(np.float32)
    items = ItemFactors(item_ID, item_ID.T.astype(np.float64) @ item_ID)
    return {"nmf": nmf.matrix_of(sample, seed=3), "als_folded": partial(folded_in, items, ALS)}


def test_an_event_on_a_rows_date_or_later_does_not_change_its_vector_and_one_before_it_does() -> None:
    events = events_of_groups()
    day = PLAN.test[0]
    num_met = Counter((e.user, e.item) for e in events if e.day < day)
    once = [e for e in events if e.day < day and num_met[e.user, e.item] == 1]
    last = max(once, key=lambda event: (event.day, event.user))
    moved = [replace(e, day=day) if e is last else e for e in events]
    sample = sample_of_groups([e for e in events if e is not last])
    was, now = context_of(events), context_of(moved)
    as_of_N, is_mine_N = was.rows.as_of_N, was.rows.user_N == last.user
    is_touched_N = is_mine_N & (as_of_N > np.datetime64(last.day)) & (as_of_N <= np.datetime64(day))
    assert is_touched_N.any()
    for name, matrix in representations_fitted(sample).items():
        before, after = matrix(was), matrix(now)
        np.testing.assert_allclose(before[~is_touched_N], after[~is_touched_N], atol=1e-3, err_msg=name)
        assert (np.abs(before - after)[is_touched_N].max(axis=1) > 1e-2).all(), name

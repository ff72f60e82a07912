"""Baselines on a planted world of two groups: users of a group meet items of their group."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tests.support.builders import config_of
from tests.support.evaluation_world import (
    FIRST_DAY,
    PLAN,
    Event,
    activity_from,
    item_id,
    rows_at_all_dates,
    user_ids,
    world,
)
from userrep.config import AlsVectors
from userrep.errors import UsageError
from userrep.evaluation.activity import Futures
from userrep.evaluation.heads import RowData, Setting, logistic
from userrep.evaluation.measure import Described, measure
from userrep.evaluation.metrics import value_of
from userrep.evaluation.output import result_lines
from userrep.evaluation.representation import Context, Floats32, Representation, WithHeads
from userrep.evaluation.representations.als import AlsFolded, Factorisation, Fitted, folded
from userrep.evaluation.representations.bags import bags_of, held_out
from userrep.evaluation.representations.hybrid import Hybrid, one_hot
from userrep.evaluation.representations.least_squares import factors_of_rows
from userrep.evaluation.representations.matrices import Nmf, Pmf
from userrep.evaluation.representations.supervised import Dlrm, DlrmHeads
from userrep.evaluation.representations.variational import GRID, MultVae
from userrep.evaluation.results import Cost, Results
from userrep.evaluation.sample import Sample, sample_of
from userrep.evaluation.tasks.neighbours import NeighboursByFavourite
from userrep.evaluation.tasks.pairs import NextItem, PairProblem
from userrep.evaluation.tasks.rows import Return
from userrep.features.layout import Block

pytestmark = pytest.mark.fast

U, V = 60, 40
ALS = AlsVectors(kind="als", dim=8, regularization=0.5)
Describe = Callable[[csr_array], Floats32]


def events_of_groups(seed: int = 0, days: int = 130) -> list[Event]:
    """Let each user meet items of its group (even or odd), and one in ten of the other."""
    rng = np.random.default_rng(seed)
    return [
        Event(user, int(2 * rng.integers(V // 2) + (user + (rng.random() < 0.1)) % 2), FIRST_DAY + timedelta(days=day))
        for user in range(U)
        for day in sorted(rng.integers(0, days, size=40).tolist())
    ]


def counts_of(events: list[Event]) -> csr_array:
    counts_UV = np.zeros((U, V))
    for event in events:
        if event.day < PLAN.until:
            counts_UV[event.user, event.item] += 1
    return csr_array(counts_UV)


def fitted_nmf(counts_UV: csr_array, seed: int) -> Describe:
    nmf = Nmf()
    nmf.fit_counts(counts_UV, seed=seed)
    return nmf.folded


def fitted_pmf(counts_UV: csr_array, seed: int) -> Describe:
    pmf = Pmf()
    pmf.fit_counts(counts_UV, seed=seed)
    return pmf.folded


def fitted_vae(counts_UV: csr_array, seed: int) -> Describe:
    vae = MultVae(grid=GRID[:1], max_steps=120)
    vae.fit_counts(counts_UV, seed=seed)
    return vae.encoded


def fitted_hybrid(counts_UV: csr_array, seed: int) -> Describe:
    hybrid = Hybrid(max_steps=80)
    content_VC = np.random.default_rng(1).normal(size=(V, 4)).astype(np.float32)
    hybrid.fit_counts(counts_UV, content_VC, np.ones((U, 1), np.float32), seed=seed)
    return lambda history_NV: hybrid.described(history_NV, np.ones((history_NV.shape[0], 1), np.float32))


FITTED = {"nmf": fitted_nmf, "pmf": fitted_pmf, "mult_vae": fitted_vae, "hybrid": fitted_hybrid}


@pytest.fixture(scope="module")
def described() -> dict[str, tuple[Describe, Floats32]]:
    counts_UV = counts_of(events_of_groups())
    fits = {name: fit(counts_UV, 3) for name, fit in FITTED.items()}
    return {name: (describe, describe(counts_UV)) for name, describe in fits.items()}


@pytest.mark.parametrize("name", FITTED)
def test_users_lie_nearer_to_others_of_their_group(name: str, described: dict[str, tuple[Describe, Floats32]]) -> None:
    x_UD = described[name][1][:, :-1]
    seen, unseen = np.arange(U) < U // 2, np.arange(U) >= U // 2
    even_D, odd_D = (x_UD[seen & (np.arange(U) % 2 == group)].mean(axis=0) for group in (0, 1))
    score_U = (x_UD - (even_D + odd_D) / 2) @ (odd_D - even_D)
    assert ((score_U[unseen] > 0) == (np.arange(U)[unseen] % 2 == 1)).mean() > 0.95


@pytest.mark.parametrize("name", FITTED)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    name: str, described: dict[str, tuple[Describe, Floats32]]
) -> None:
    counts_UV = counts_of(events_of_groups())
    assert (FITTED[name](counts_UV, 3)(counts_UV) == described[name][1]).all()
    if name != "nmf":  # which begins from a singular value decomposition
        assert (FITTED[name](counts_UV, 4)(counts_UV) != described[name][1]).any()


@pytest.mark.parametrize("name", FITTED)
def test_without_a_history_all_are_alike_and_the_flag_says_so(
    name: str, described: dict[str, tuple[Describe, Floats32]]
) -> None:
    describe, x_UD = described[name]
    assert (x_UD[:, -1] == 1).all()
    nobody_ND = describe(csr_array((3, V)))
    assert (nobody_ND[:, -1] == 0).all()
    assert (nobody_ND[0] == nobody_ND).all()
    assert name == "hybrid" or not nobody_ND.any()  # the hybrid knows attributes


@pytest.mark.parametrize("name", FITTED)
def test_a_row_does_not_depend_on_the_rows_beside_it(
    name: str, described: dict[str, tuple[Describe, Floats32]]
) -> None:
    describe, x_UD = described[name]
    some = [7, 2, 31]
    np.testing.assert_allclose(describe(csr_array(counts_of(events_of_groups())[some])), x_UD[some], atol=1e-3)


def context_of(events: list[Event], sample: Sample) -> Context:
    """Put together what folding in looks at, without tables."""
    rows = rows_at_all_dates(U)
    nothing = cast(Any, None)
    context = Context(nothing, nothing, nothing, PLAN, Futures(rows, activity_from(events, rows, V)), seed=1)
    vars(context)["sample"] = sample
    return context


def representations_fitted(counts_UV: csr_array) -> list[Representation]:
    nmf, pmf, vae, factors = Nmf(), Pmf(), MultVae(grid=GRID[:1], max_steps=60), Factorisation(ALS)
    for one in (nmf, pmf, vae):
        one.fit_counts(counts_UV, seed=3)
    item_ID = np.random.default_rng(0).normal(size=(V, ALS.dim)).astype(np.float32)
    factors._fitted = Fitted(np.zeros((U, ALS.dim), np.float32), item_ID, item_ID.T.astype(np.float64) @ item_ID)
    return [nmf, pmf, vae, AlsFolded(factors)]


def test_an_event_on_a_rows_date_or_later_does_not_change_its_vector_and_one_before_it_does() -> None:
    events = events_of_groups()
    day = PLAN.test[0]
    num_met = Counter((e.user, e.item) for e in events if e.day < day)
    once = [e for e in events if e.day < day and num_met[e.user, e.item] == 1]
    last = max(once, key=lambda event: (event.day, event.user))
    moved = [replace(e, day=day) if e is last else e for e in events]
    sample = Sample(
        pa.array(user_ids(U)), pa.array([item_id(k) for k in range(V)]), counts_of([e for e in events if e is not last])
    )
    was, now = context_of(events, sample), context_of(moved, sample)
    as_of_N, is_mine_N = was.rows.as_of_N, was.rows.user_N == last.user
    is_touched_N = is_mine_N & (as_of_N > np.datetime64(last.day)) & (as_of_N <= np.datetime64(day))
    assert is_touched_N.any()
    for one in representations_fitted(sample.num_events_UV):
        before, after = one.matrix(was), one.matrix(now)
        np.testing.assert_allclose(before[~is_touched_N], after[~is_touched_N], atol=1e-3, err_msg=one.name)
        assert (np.abs(before - after)[is_touched_N].max(axis=1) > 1e-2).all(), one.name


def by_stacked_least_squares(
    row_I: NDArray[np.float64], item_ID: NDArray[np.float64], zeros: float, ridge: float
) -> NDArray[np.float64]:
    """Minimise the squared errors of items met, of all items from zero, and the ridge, as one overdetermined system."""
    met = np.flatnonzero(row_I)
    left = [item_ID[met], np.sqrt(zeros) * item_ID, np.sqrt(ridge * len(met)) * np.eye(item_ID.shape[1])]
    right = [row_I[met], np.zeros(len(item_ID)), np.zeros(item_ID.shape[1])]
    found: NDArray[np.float64] = np.linalg.lstsq(np.vstack(left), np.concatenate(right))[0]
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0, 2), st.floats(0.01, 2))
def test_factors_are_those_of_least_squares(seed: int, zeros: float, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    rows_NI, item_ID = rng.poisson(0.4, size=(5, 12)).astype(np.float64), rng.normal(size=(12, 3))
    counts_NI = csr_array(rows_NI)
    found_ND = factors_of_rows(
        counts_NI, np.ones(counts_NI.nnz), counts_NI.data, item_ID,
        zeros_N=np.full(5, zeros), gram_DD=item_ID.T @ item_ID, ridge=ridge,
    )  # fmt: skip
    for row_I, found_D in zip(rows_NI, found_ND, strict=True):
        wanted = by_stacked_least_squares(row_I, item_ID, zeros, ridge) if row_I.any() else np.zeros(3)
        np.testing.assert_allclose(found_D, wanted, atol=1e-8)


def test_folded_als_is_the_weighted_regression_of_the_paper_and_items_without_factors_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    item_ID = rng.normal(size=(12, ALS.dim)).astype(np.float32)
    item_ID[3] = 0
    history_NI = rng.poisson(1, size=(6, 12)).astype(np.float64)
    history_NI[:, 3] = 5
    fitted = Fitted(np.zeros((0, ALS.dim), np.float32), item_ID, item_ID.T.astype(np.float64) @ item_ID)
    found = folded(csr_array(history_NI), fitted, ALS)
    for row_I, found_D in zip(history_NI, found, strict=True):
        confidence_I = 1 + ALS.alpha * np.log1p(row_I)
        confidence_I[3] = 1
        is_met_I = (row_I > 0) & (np.arange(12) != 3)
        y_ID = item_ID.astype(np.float64)
        left = y_ID.T @ (confidence_I[:, None] * y_ID) + ALS.regularization * is_met_I.sum() * np.eye(ALS.dim)
        np.testing.assert_allclose(found_D, np.linalg.solve(left, y_ID.T @ (confidence_I * is_met_I)), atol=1e-4)


def test_held_out_users_are_not_trained_on_and_their_items_are_shown_or_hidden() -> None:
    counts_UV = counts_of(events_of_groups())
    training, apart = held_out(counts_UV, np.random.default_rng(0))
    assert set(training) & set(apart.user_Q) == set()
    assert len(apart.user_Q) == U // 10
    both_QV = (apart.shown_QV + apart.hidden_QV).toarray()
    assert (both_QV == counts_UV.toarray()[apart.user_Q]).all()
    assert not (apart.shown_QV.toarray() * apart.hidden_QV.toarray()).any()
    hidden_QV = apart.hidden_QV.toarray().astype(np.float32)
    assert apart.ndcg(lambda shown, users: hidden_QV) == pytest.approx(1)
    assert apart.ndcg(lambda shown, users: -hidden_QV + shown.toarray()) < 0.7


def test_too_few_users_to_train_on_are_named() -> None:
    with pytest.raises(UsageError, match="19 users have met more than one item"):
        held_out(csr_array(np.ones((19, 3))), np.random.default_rng(0))


def test_bags_hold_the_items_of_each_user() -> None:
    counts = np.random.default_rng(0).poisson(0.3, size=(600, 9))
    for bags in bags_of(csr_array(counts), np.arange(600)):
        for b, row in enumerate(bags.rows_B):
            mine = slice(int(bags.start_B[b]), int(bags.start_B[b] + bags.length_B[b]))
            assert bags.item_E[mine].tolist() == np.flatnonzero(counts[row]).tolist()
            assert (bags.row_E[mine] == b).all()


def test_a_sample_keeps_the_items_that_most_users_met_whatever_the_order_of_its_entries() -> None:
    entries = [("b", "y", 2.0), ("a", "x", 1.0), ("a", "y", 4.0), ("c", "z", 9.0), ("c", "w", 1.0)]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        columns = zip(*(entries[k] for k in order), strict=True)
        table = pa.table(dict(zip(("user_id", "item_id", "num_events"), columns, strict=True)))
        sample = sample_of(table, max_items=2)
        assert (sample.user_ids.to_pylist(), sample.item_ids.to_pylist()) == (["a", "b", "c"], ["w", "y"])
        assert sample.num_events_UV.toarray().tolist() == [[0, 4], [0, 2], [1, 0]]
    moved = sample.columns_of(csr_array([[1, 2, 3]]), pa.array(["v", "w", "y"]))
    assert moved.toarray().tolist() == [[2, 3]]


def test_attributes_outside_the_vocabulary_are_zeros() -> None:
    values = {"attribute_x": pa.array(["b", None, "c", "a"]), "attribute_y": pa.array(["u", "u", None, "u"])}
    found = one_hot(values, {"attribute_x": ["a", "b"], "attribute_y": ["u"]})
    assert found.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]]


BLOCKS = (
    Block(name="one", kind="pooled", start=0, stop=4, flag=9),
    Block(name="two", kind="pooled", start=4, stop=8),
    Block(name="count", kind="scalar", start=8, stop=9),
    Block(name="flags", kind="flags", start=9, stop=10),
)


def test_fields_that_meet_tell_what_no_linear_head_can() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(3000, 10)).astype(np.float32)
    y_N = ((x_NF[:, :4] * x_NF[:, 4:8]).sum(axis=1) > 0).astype(np.float32)
    x, y = torch.from_numpy(x_NF), torch.from_numpy(y_N[:, None])
    right = {}
    for name, heads in (("dlrm", {"heads": DlrmHeads(BLOCKS)}), ("small", {})):
        data = RowData(x, y, np.arange(2000), np.arange(2000, 2500), logistic, **cast(Any, heads))
        net, _ = data.fitted(Setting(32 if heads else 0, 0.01), 1)
        right[name] = float(((net(x[2500:])[:, 0] > 0) == (y[2500:, 0] > 0)).float().mean())
    assert right["dlrm"] > 0.8 > 0.6 > right["small"]


def test_the_dlrm_like_model_learns_pairs_and_says_what_reads_it() -> None:
    planted = world(num_users=200)
    problem = NextItem(7).problem(planted.truth, 1)
    assert isinstance(problem, PairProblem)
    x_NF = np.zeros((len(planted.rows), 10), np.float32)
    x_NF[:, :4] = planted.taste_of_rows()
    scores = problem.scores(x_NF, Setting(32, 0.01), 1, DlrmHeads(BLOCKS))
    assert value_of("auc", scores) > 0.65
    assert isinstance(Dlrm(), WithHeads)
    assert not isinstance(Nmf(), WithHeads)


def test_what_brings_its_own_nets_is_left_out_of_tasks_without_any_and_its_place_is_empty(tmp_path: Path) -> None:
    planted = world(num_users=150)
    x_NF = np.zeros((len(planted.rows), 10), np.float32)
    x_NF[:, :4] = planted.taste_of_rows()
    cost = Cost(0.0, 0.0, *x_NF.shape)
    config = config_of(tmp_path, evaluation={"num_seeds": 1, "num_bootstraps": 20})
    described = [Described("embedding", x_NF, cost), Described("dlrm_like", x_NF, cost, DlrmHeads(BLOCKS))]
    found, left_out = measure(
        [Return(7), NeighboursByFavourite(30)], planted.truth, described, config, report=lambda line: None
    )
    assert not left_out
    assert [(one.task, one.representation) for one in found] == [
        ("return_7d", "embedding"), ("return_7d", "dlrm_like"), ("neighbours", "embedding"),
    ]  # fmt: skip
    _, (with_heads, without) = result_lines(Results({}, found, {"embedding": cost, "dlrm_like": cost}, {}))
    assert with_heads[3]
    assert without[3] == ""

"""Factors by ALS without Spark: rows folded in, rows looked up, and the flag that says where there are any."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from tests.support.evaluation_world import NUM_GROUPED_ITEMS, PLAN, Event, context_of, events_of_groups
from userrep.config import AlsVectors
from userrep.evaluation.futures import Futures
from userrep.evaluation.metrics import Floats32
from userrep.evaluation.representations import als
from userrep.evaluation.representations.als import (
    Factors,
    ItemFactors,
    fit_refitted,
    fits_of_one_factorization,
    flagged,
    folded,
    folded_in,
    looked_up,
)

pytestmark = pytest.mark.fast

ALS = AlsVectors(kind="als", dim=8, regularization=0.5)


def items_of(item_ID: Floats32) -> ItemFactors:
    return ItemFactors(item_ID, item_ID.T.astype(np.float64) @ item_ID)


def factorised(num_users: int = 60, num_items: int = 40) -> Factors:
    """Draw factors; every other user has none."""
    rng = np.random.default_rng(0)
    user_UD, item_ID = (rng.normal(size=(size, ALS.dim)).astype(np.float32) for size in (num_users, num_items))
    user_UD[::2] = 0
    return Factors(user_UD, items_of(item_ID))


def test_folded_als_is_the_weighted_regression_of_the_paper_and_items_without_factors_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    item_ID = rng.normal(size=(12, ALS.dim)).astype(np.float32)
    item_ID[3] = 0
    history_NI = rng.poisson(1, size=(6, 12)).astype(np.float64)
    history_NI[:, 3] = 5
    found = folded(csr_array(history_NI), items_of(item_ID), ALS)
    for row_I, found_D in zip(history_NI, found, strict=True):
        confidence_I = 1 + ALS.alpha * np.log1p(row_I)
        confidence_I[3] = 1
        is_met_I = (row_I > 0) & (np.arange(12) != 3)
        y_ID = item_ID.astype(np.float64)
        left = y_ID.T @ (confidence_I[:, None] * y_ID) + ALS.regularization * is_met_I.sum() * np.eye(ALS.dim)
        np.testing.assert_allclose(found_D, np.linalg.solve(left, y_ID.T @ (confidence_I * is_met_I)), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.1, 5), st.floats(0.01, 2))
def test_factors_are_those_of_one_overdetermined_system(seed: int, alpha: float, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    history_NI, item_ID = rng.poisson(0.4, size=(5, 12)).astype(np.float64), rng.normal(size=(12, 3)).astype(np.float32)
    drawn = AlsVectors(kind="als", dim=3, alpha=alpha, regularization=ridge)
    found_ND = folded(csr_array(history_NI), items_of(item_ID), drawn)
    for row_I, found_D in zip(history_NI, found_ND, strict=True):
        root_I = np.sqrt(1 + alpha * np.log1p(row_I))  # of the squared error's weight
        left = np.vstack([root_I[:, None] * item_ID, np.sqrt(ridge * (row_I > 0).sum()) * np.eye(3)])
        right = np.concatenate([root_I * (row_I > 0), np.zeros(3)])
        wanted = np.linalg.lstsq(left, right)[0] if row_I.any() else np.zeros(3)
        np.testing.assert_allclose(found_D, wanted, rtol=1e-4, atol=1e-5)


def test_rows_are_the_same_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows_NI, item_ID = rng.poisson(0.3, size=(11, 8)).astype(np.float64), rng.normal(size=(8, 2)).astype(np.float32)
    rows_NI[3:6] = 0  # a chunk without any entry
    found = []
    for size in (3, 11, 512):
        monkeypatch.setattr(als, "_CHUNK", size)
        found.append(folded(csr_array(rows_NI), items_of(item_ID), ALS))
    assert (found[0] == found[1]).all()
    assert (found[1] == found[2]).all()
    assert (found[0].any(axis=1) == rows_NI.any(axis=1)).all()


def test_a_flag_marks_rows_that_are_not_all_zeros() -> None:
    x_ND = np.array([[0, 0], [0, -1], [2, 3]], np.float32)
    assert flagged(x_ND).tolist() == [[0, 0, 0], [0, -1, 1], [2, 3, 1]]
    assert flagged(x_ND).dtype == np.float32


def test_static_factors_are_those_of_the_rows_user_at_any_date_and_zeros_where_there_are_none() -> None:
    context, user_UD = context_of([Event(1, 0, PLAN.test[0])]), factorised().user_UD
    x_ND = looked_up(user_UD, context)
    for n, user in enumerate(context.rows.user_N):
        assert x_ND[n].tolist() == [*user_UD[user].tolist(), float(user % 2)]


def test_cut_rows_have_no_static_factors_and_are_folded_in_by_what_is_known() -> None:
    events = [Event(user, item, PLAN.until) for user in range(60) for item in (user % 40, 7)]
    context, (user_UD, items) = context_of(events), factorised()
    known = csr_array((context.futures.history > 0) * (np.arange(40.0) == 7))  # one event with the item of all
    cut = replace(context, futures=Futures(context.rows, context.activity, known))
    assert not looked_up(user_UD, cut).any()
    folded_ND = folded_in(items, ALS, cut)
    at_first = context.rows.date_N == 0  # the day of the events
    assert not folded_ND[at_first].any()
    assert (folded_ND[~at_first] == folded_ND[~at_first][0]).all()
    assert folded_ND[~at_first].any()
    assert (folded_in(items, ALS, context)[~at_first] != folded_ND[~at_first]).any()


def test_one_factorization_serves_both_representations(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = [factorised()]
    monkeypatch.setattr(als, "factorized", lambda *_, **__: factors.pop())
    context = context_of([])
    static_ND, folded_ND = (fit(context)(context) for fit in fits_of_one_factorization(ALS))
    assert (static_ND[:, -1] == context.rows.user_N % 2).all()
    assert not folded_ND.any()


def test_refitted_factors_know_all_that_lies_before_a_date_and_nothing_from_it_on() -> None:
    events = events_of_groups()
    day = PLAN.test[0]
    later = [
        replace(event, item=(event.item + 1) % NUM_GROUPED_ITEMS) if event.day >= day else event for event in events
    ]
    was, now = context_of(events), context_of(later)
    was_ND, now_ND = (fit_refitted(context, ALS)(context) for context in (was, now))
    is_before_N = was.rows.as_of_N <= np.datetime64(day)
    assert (was_ND[is_before_N] == now_ND[is_before_N]).all()
    assert (was_ND[~is_before_N] != now_ND[~is_before_N]).any()


def test_refitted_factors_of_all_dates_are_read_in_one_space() -> None:
    context = context_of(events_of_groups())
    x_ND, rows = fit_refitted(context, ALS)(context), context.rows
    assert (x_ND[:, -1] == 1).all()
    is_odd_N, is_last_N = rows.user_N % 2 == 1, rows.date_N == len(rows.dates) - 1
    earlier = LogisticRegression().fit(x_ND[~is_last_N, :-1], is_odd_N[~is_last_N])
    assert earlier.score(x_ND[is_last_N, :-1], is_odd_N[is_last_N]) > 0.95

"""What representations may look at, of whole rows and of cut ones."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from tests.support.evaluation_world import (
    NUM_GROUPED,
    NUM_GROUPED_ITEMS,
    PLAN,
    Event,
    activity_from,
    context_of,
    context_with_features,
    events_of_groups,
    features_of,
    item_id,
)
from userrep.evaluation.futures import Futures, TruncatedFutures
from userrep.evaluation.sample import Sample

pytestmark = pytest.mark.fast


def test_cut_rows_have_their_own_futures_and_share_the_sample_and_the_encoder_of_the_whole() -> None:
    sample = Sample(pa.array(["a"]), pa.array(["i"]), csr_array((1, 1)))
    whole = context_of([Event(0, 0, PLAN.until)], sample)
    encoder = object()
    vars(whole)["encoder"] = encoder
    futures = TruncatedFutures(whole.rows, whole.activity, whole.futures.history * 0)
    cut = whole.truncated(futures)
    assert (whole.is_truncated, cut.is_truncated) == (False, True)
    assert cut.futures is futures
    assert cut.sample is sample
    assert cut.encoder is encoder
    assert (cut.seed, cut.plan) == (whole.seed, whole.plan)


def test_picks_are_those_of_each_rows_user() -> None:
    context = context_of([])
    picks = [(3, 5), (3, 7), (59, 0)]
    activity = activity_from([Event(0, 0, PLAN.until)], context.rows, NUM_GROUPED_ITEMS, picks=picks)
    picked_NI = replace(context, futures=Futures(context.rows, activity)).picked.toarray()
    for n, user in enumerate(context.rows.user_N):
        assert np.flatnonzero(picked_NI[n]).tolist() == [item for of, item in picks if of == user]


def test_the_history_of_the_sample_has_the_samples_columns_and_each_rows_events_before_its_date() -> None:
    events = events_of_groups()
    items = [item_id(k) for k in (39, 3, 8)]
    sample = Sample(pa.array(["a"]), pa.array([*items, "unknown"]), csr_array((1, 4)))
    context = context_of(events, sample)
    found_NV = context.history_of_sample().toarray()
    assert found_NV.shape == (len(context.rows), 4)
    for n in range(0, len(context.rows), 11):
        user, day = int(context.rows.user_N[n]), context.rows.dates[context.rows.date_N[n]]
        wanted = [sum((e.user, e.item) == (user, item) and e.day < day for e in events) for item in (39, 3, 8)]
        assert found_NV[n].tolist() == [*wanted, 0]
    assert len(context.rows) == NUM_GROUPED * len(PLAN.dates)


def test_inputs_are_laid_out_from_the_rows_own_features_and_scaled_by_the_space() -> None:
    context = context_with_features()
    raw_NF, scaled_NF = context.raw(), context.scaled()
    assert (raw_NF == context.layout.raw(context.rows.features)).all()
    assert (scaled_NF == context.artifact.scaler.apply(context.layout, raw_NF.copy())).all()
    assert (raw_NF != scaled_NF).any()
    others = replace(context.rows, features=features_of(len(context.rows), seed=9))
    cut = context.truncated(TruncatedFutures(others, context.activity, context.futures.history))
    assert (cut.raw() == context.layout.raw(others.features)).all()
    assert (cut.raw() != raw_NF).any()

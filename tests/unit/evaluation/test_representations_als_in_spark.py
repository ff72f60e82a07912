"""Static and folded factors from one factorization in Spark, and the sample that is read with it."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from tests.support.evaluation_world import FIRST_DAY, PLAN, Event, activity_from, item_id, rows_at_all_dates, user_ids
from userrep.config import AlsVectors
from userrep.evaluation.futures import Futures
from userrep.evaluation.representation import Context
from userrep.evaluation.representations.als import fits_of_one_factorization
from userrep.evaluation.representations.nmf import read_sample

pytestmark = pytest.mark.default

U, V, NEWCOMER = 40, 25, 39
ALS = AlsVectors(kind="als", dim=6, alpha=3, regularization=0.5)


@dataclass(frozen=True, eq=False)
class ContextOf(Context):
    """A context whose log is a frame."""

    seen: DataFrame = field(kw_only=True)

    def interactions(self) -> DataFrame:
        return self.seen


def test_factors_folded_in_at_the_end_of_the_training_are_those_that_als_found(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    later = (PLAN.end - FIRST_DAY).days - 1
    events = [
        Event(user, int(rng.integers(V)), FIRST_DAY + timedelta(days=int(day)))
        for user in range(U)
        for day in (rng.integers(0, later, size=25) if user != NEWCOMER else [70])
    ]
    before = [event for event in events if event.day < PLAN.until]
    seen = pa.table({
        "user_id": [user_ids(U)[event.user] for event in before], "item_id": [item_id(event.item) for event in before],
        "num_events": pa.array([1] * len(before), pa.int64()),
    }).group_by(["user_id", "item_id"]).aggregate([("num_events", "sum")]).rename_columns(
        ["user_id", "item_id", "num_events"]
    )  # fmt: skip
    rows, nothing = rows_at_all_dates(U), cast(Any, None)
    futures = Futures(rows, activity_from(events, rows, V))
    context = ContextOf(nothing, nothing, nothing, PLAN, nothing, futures, seed=1, seen=spark.createDataFrame(seen))
    static_ND, folded_ND = (fit(context)(context) for fit in fits_of_one_factorization(ALS))
    at_until_N = rows.as_of_N == np.datetime64(PLAN.until)
    np.testing.assert_allclose(folded_ND[at_until_N], static_ND[at_until_N], atol=1e-4)
    assert np.abs(folded_ND - static_ND)[~at_until_N].max() > 0.1
    is_new_N = rows.user_N == NEWCOMER
    assert not static_ND[is_new_N].any()
    assert (static_ND[~is_new_N, -1] == 1).all()
    assert folded_ND[is_new_N & (rows.as_of_N > np.datetime64(max(e.day for e in events if e.user == NEWCOMER)))].any()

    sample = read_sample(context.interactions(), seed=context.seed)
    assert sample.num_events_UV.sum() == len(before)
    history_NV = sample.columns_of(futures.history, context.activity.item_ids)
    assert sample.user_ids.to_pylist() == user_ids(NEWCOMER)
    assert (history_NV[at_until_N & ~is_new_N].toarray() == sample.num_events_UV.toarray()).all()

"""What representations may look at, of whole rows and of cut ones."""

from dataclasses import replace

import pytest

from tests.support.evaluation_world import (
    PLAN,
    Event,
    context_of,
    context_with_features,
    features_of,
)
from userrep.evaluation.futures import Futures

pytestmark = pytest.mark.fast


def test_cut_rows_are_those_with_a_known_part_of_the_history() -> None:
    whole = context_of([Event(0, 0, PLAN.until)])
    cut = replace(whole, futures=Futures(whole.rows, whole.activity, whole.futures.history * 0))
    assert (whole.is_truncated, cut.is_truncated) == (False, True)


def test_inputs_are_laid_out_from_the_rows_own_features_and_scaled_by_the_space() -> None:
    context = context_with_features()
    raw_NF, scaled_NF = context.raw(), context.scaled()
    assert (raw_NF == context.layout.raw(context.rows.features)).all()
    assert (scaled_NF == context.artifact.scaler.apply(context.layout, raw_NF.copy())).all()
    assert (raw_NF != scaled_NF).any()
    others = replace(context.rows, features=features_of(len(context.rows), seed=9))
    cut = replace(context, futures=Futures(others, context.activity, context.futures.history))
    assert (cut.raw() == context.layout.raw(others.features)).all()
    assert (cut.raw() != raw_NF).any()

"""Representations that are the user features themselves, or some of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.support.evaluation_world import LAYOUT, context_with_features
from tests.unit.inference.test_model import LINEAR, features, saved
from userrep.evaluation.representation import Context
from userrep.evaluation.representations import inputs
from userrep.evaluation.representations.inputs import (
    Blocks,
    Embedding,
    Popularity,
    Raw,
    Untrained,
    is_count,
    is_pick,
    is_pooled,
    is_pooled_longest,
    is_recent_count,
)
from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def context() -> Context:
    return context_with_features()


def test_nothing_is_one_column_of_zeros(context: Context) -> None:
    assert Popularity().matrix(context).tolist() == [[0]] * len(context.rows)


def test_raw_are_the_scaled_inputs_of_the_encoder(context: Context) -> None:
    x_NF = Raw().matrix(context)
    assert x_NF.shape == (len(context.rows), LAYOUT.width)
    scaler = context.artifact.scaler
    block = next(block for block in LAYOUT.blocks if block.name == "num_events_7d")
    counts = np.log1p(context.rows.features.column("num_events_7d").to_numpy())
    wanted = np.clip((counts - scaler.center_F[block.start]) / scaler.scale_F[block.start], -8, 8)
    np.testing.assert_allclose(x_NF[:, block.start], wanted, rtol=1e-4, atol=1e-5)


COUNTS = ["num_events", "weight", "num_active_days"]
DAYS = ["days_since_last_event", "days_since_first_event", "days_since_registration"]


@pytest.mark.parametrize(
    ("takes", "names"),
    [
        (is_count, [f"{name}_{days}d" for days in (7, 14, 60) for name in COUNTS] + DAYS),
        (is_recent_count, [f"{name}_{days}d" for days in (7, 14) for name in COUNTS] + DAYS),
        (is_pooled, ["content_7d", "content_14d", "content_60d", "content_onboarding"]),
        (is_pooled_longest, ["content_14d"]),
        (is_pick, ["content_onboarding"]),
    ],
)
def test_each_kind_of_representation_takes_its_blocks_and_no_others(
    context: Context, takes: Any, names: list[str]
) -> None:
    assert [block.name for block in LAYOUT.blocks if takes(block, context)] == names


def test_blocks_are_unscaled_and_followed_by_their_presence_flags(context: Context) -> None:
    features = context.rows.features
    x_NF = Blocks("pooled_longest", is_pooled_longest).matrix(context)
    has_N = features.column("has_content_14d").to_numpy(zero_copy_only=False).astype(np.float32)
    vectors_ND = np.array(features.column("content_14d").to_pylist(), np.float32) * has_N[:, None]
    np.testing.assert_allclose(x_NF, np.hstack([vectors_ND, has_N[:, None]]))
    rfm_NF = Blocks("rfm", is_recent_count).matrix(context)
    known = features.column("days_since_registration").is_valid().to_numpy(zero_copy_only=False)
    days_N = np.nan_to_num(features.column("days_since_registration").to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(rfm_NF[:, 8], np.log1p(days_N) * known, rtol=1e-5)
    assert rfm_NF.shape[1] == 9 + 3
    assert rfm_NF[:, -1].tolist() == known.tolist()
    np.testing.assert_allclose(rfm_NF[:, 0], np.log1p(features.column("num_events_7d").to_numpy()), rtol=1e-5)


def test_a_space_without_such_a_block_is_refused(context: Context) -> None:
    with pytest.raises(ValueError, match="picks: the space's inputs have no block of this kind"):
        Blocks("picks", lambda block, context: False).matrix(context)


def test_the_embedding_is_what_the_encoder_makes_of_the_features_and_its_fit_warms_it_up_with_one_row(
    context: Context,
) -> None:
    asked: list[int] = []

    def embed(features: Any) -> np.ndarray:
        asked.append(features.num_rows)
        return np.full((features.num_rows, 2), len(asked), np.float32)

    with_encoder = cast(Any, SimpleNamespace(encoder=SimpleNamespace(embed=embed), rows=context.rows))
    Embedding().fit(with_encoder)
    assert Embedding().matrix(with_encoder).tolist() == [[2, 2]] * len(context.rows)
    assert asked == [1, len(context.rows)]


def test_an_untrained_embedding_differs_in_the_learned_code_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "s1", model=LINEAR)
    artifact, batch = load_artifact(str(tmp_path / "s1")), features(40)
    rows = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
    monkeypatch.setattr(inputs, "earlier_rows", lambda _: rows)
    context = SimpleNamespace(artifact=artifact, layout=artifact.layout, seed=5, rows=SimpleNamespace(features=batch))
    untrained = Untrained()
    untrained.fit(cast(Context, context))
    found_ND, trained_ND = untrained.matrix(cast(Context, context)), Encoder(artifact).embed(batch)
    np.testing.assert_allclose(found_ND[:, 14:], trained_ND[:, 14:], rtol=1e-4, atol=1e-4)  # propensities
    np.testing.assert_allclose(found_ND[:, :14].mean(axis=0), 0, atol=1e-4)
    assert np.abs(found_ND[:, :14] - trained_ND[:, :14]).max() > 0.5

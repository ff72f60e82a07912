"""Representations that are the user features themselves, or some of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from tests.support.evaluation_world import LAYOUT, context_with_features
from tests.unit.inference.test_model import LINEAR, features, saved
from userrep.evaluation.representation import Context
from userrep.evaluation.representations import inputs
from userrep.evaluation.representations.inputs import (
    blocks,
    counts,
    embedding,
    fit_pca,
    picks,
    pooled,
    pooled_longest,
    popularity,
    principal,
    raw,
    recent_counts,
    untrained,
)
from userrep.inference.encoder import Encoder
from userrep.model.artifact import Artifact, load_artifact

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def context() -> Context:
    return context_with_features()


def test_nothing_is_one_column_of_zeros(context: Context) -> None:
    assert popularity(context)(context).tolist() == [[0]] * len(context.rows)


def test_raw_are_the_scaled_inputs_of_the_encoder(context: Context) -> None:
    x_NF = raw(context)(context)
    assert x_NF.shape == (len(context.rows), LAYOUT.width)
    scaler = context.artifact.scaler
    block = next(block for block in LAYOUT.blocks if block.name == "num_events_7d")
    logs = np.log1p(context.rows.features.column("num_events_7d").to_numpy())
    wanted = np.clip((logs - scaler.center_F[block.start]) / scaler.scale_F[block.start], -8, 8)
    np.testing.assert_allclose(x_NF[:, block.start], wanted, rtol=1e-4, atol=1e-5)


COUNTS = ["num_events", "weight", "num_active_days"]
DAYS = ["days_since_last_event", "days_since_first_event", "days_since_registration"]


@pytest.mark.parametrize(
    ("selected", "names"),
    [
        (counts, [f"{name}_{days}d" for days in (7, 14, 60) for name in COUNTS] + DAYS),
        (recent_counts, [f"{name}_{days}d" for days in (7, 14) for name in COUNTS] + DAYS),
        (pooled, ["content_7d", "content_14d", "content_60d", "content_onboarding"]),
        (pooled_longest, ["content_14d"]),
        (picks, ["content_onboarding"]),
    ],
)
def test_each_kind_of_representation_takes_its_blocks_and_no_others(selected: Any, names: list[str]) -> None:
    assert [block.name for block in selected(LAYOUT)] == names


def test_blocks_are_unscaled_and_followed_by_their_presence_flags(context: Context) -> None:
    features = context.rows.features
    x_NF = blocks(pooled_longest)(context)(context)
    has_N = features.column("has_content_14d").to_numpy(zero_copy_only=False).astype(np.float32)
    vectors_ND = np.array(features.column("content_14d").to_pylist(), np.float32) * has_N[:, None]
    np.testing.assert_allclose(x_NF, np.hstack([vectors_ND, has_N[:, None]]))
    rfm_NF = blocks(recent_counts)(context)(context)
    known = features.column("days_since_registration").is_valid().to_numpy(zero_copy_only=False)
    days_N = np.nan_to_num(features.column("days_since_registration").to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(rfm_NF[:, 8], np.log1p(days_N) * known, rtol=1e-5)
    assert rfm_NF.shape[1] == 9 + 3
    assert rfm_NF[:, -1].tolist() == known.tolist()
    np.testing.assert_allclose(rfm_NF[:, 0], np.log1p(features.column("num_events_7d").to_numpy()), rtol=1e-5)


def test_the_embedding_is_what_the_encoder_makes_of_the_features_and_its_fit_warms_it_up_with_one_row(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def embed(features: Any) -> np.ndarray:
        asked.append(features.num_rows)
        return np.full((features.num_rows, 2), len(asked), np.float32)

    encoders = {("the artifact", "float32"): SimpleNamespace(embed=embed)}
    monkeypatch.setattr(inputs, "Encoder", lambda *arguments: encoders[arguments])
    matrix = embedding(cast(Any, lambda _: "the artifact"))(context)
    assert matrix(context).tolist() == [[2, 2]] * len(context.rows)
    assert asked == [1, len(context.rows)]


@pytest.mark.parametrize("weights_of", [untrained, principal])
def test_an_embedding_before_training_differs_in_the_learned_code_only(
    weights_of: Callable[[Context], Artifact], tmp_path: Path
) -> None:
    saved(tmp_path / "s1", model=LINEAR)
    artifact, batch = load_artifact(str(tmp_path / "s1")), features(40)
    rows = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
    context = SimpleNamespace(artifact=artifact, layout=artifact.layout, seed=5, earlier_rows=rows)
    found_ND = Encoder(weights_of(cast(Context, context))).embed(batch)
    trained_ND = Encoder(artifact).embed(batch)
    np.testing.assert_allclose(found_ND[:, 14:], trained_ND[:, 14:], rtol=1e-4, atol=1e-4)  # propensities
    np.testing.assert_allclose(found_ND[:, :14].mean(axis=0), 0, atol=1e-4)
    assert np.abs(found_ND[:, :14] - trained_ND[:, :14]).max() > 0.5


# -- principal components, against scikit-learn's ----------------------------------------------------------------------


def scaled_to(x_NF: NDArray[np.float32]) -> Any:
    """Return a context whose scaled rows are these."""
    return cast(Any, SimpleNamespace(scaled=lambda: x_NF))


def fitted_on(x_BF: NDArray[np.float32]) -> Any:
    """Return a context whose sample has these rows."""
    return cast(Any, SimpleNamespace(earlier_rows=x_BF, seed=17))


def drawn_rows(num_rows: int = 300, seed: int = 0) -> NDArray[np.float32]:
    """Draw rows of 12 inputs that go together, far from the origin and of very different variances."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num_rows, 12)) * 2.0 ** -np.arange(12) @ rng.normal(size=(12, 12))
    return (mixed + 5).astype(np.float32)


def test_components_are_those_of_scikit_learn_in_rotated_coordinates() -> None:
    x_BF, x_NF = drawn_rows(), drawn_rows(50, seed=1)
    found_ND = fit_pca(fitted_on(x_BF), num_components=5)(scaled_to(x_NF))
    wanted_ND = PCA(5).fit(x_BF.astype(np.float64)).transform(x_NF.astype(np.float64))
    assert found_ND.dtype == np.float32
    np.testing.assert_allclose(found_ND @ found_ND.T, wanted_ND @ wanted_ND.T, rtol=1e-3, atol=1e-2)
    assert found_ND.std(axis=0).min() > 1.5 * wanted_ND.std(axis=0).min()  # no coordinate is the weakest component


def test_there_are_as_many_components_as_inputs_at_most() -> None:
    x_BF = drawn_rows()
    found_ND = fit_pca(fitted_on(x_BF))(scaled_to(x_BF))
    assert found_ND.shape == (300, 12)
    lengths = np.linalg.norm(found_ND.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x_BF - x_BF.mean(axis=0), axis=1), rtol=1e-3)  # nothing is lost

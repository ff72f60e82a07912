"""The encoder's forward pass, on a saved artifact; and helpers of tests that need one."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from userrep import config
from userrep.features.layout import InputLayout, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.inference.encoder import ROWS, Encoder
from userrep.model.artifact import SpaceManifest, load_artifact, save_artifact, tensors_of
from userrep.model.autoencoder import Autoencoder
from userrep.model.corruption import empty_input
from userrep.model.frozen_folder import _content_hash
from userrep.model.weights import FITTED_OUTSIDE
from userrep.spaces.create import save_space

pytestmark = pytest.mark.fast

MODEL = config.Model(latent_dim=16, hidden_dim=8, decoder_dim=6)
LINEAR = config.Model(latent_dim=16)
PAPER = config.Model(preset="autoencoder", latent_dim=16, hidden_dim=8, decoder_dim=6)
NO_TARGETS = TargetLayout(futures=[], blocks=[])


def layout_of(dim: int = 3, taste_modality: str | None = None) -> InputLayout:
    spec = FeatureSpec(
        windows_days=[7], modalities={"behaviour": dim}, onboarding=True, registered_at=False,
        attributes=["country"], context=["device"],
    )  # fmt: skip
    return InputLayout.of(
        spec, {"attribute_country": ["dk", "(other)"], "num_by_context_7d": ["device=phone", "(other)"]}, taste_modality
    )


def scaler_of(layout: InputLayout) -> Scaler:
    random = np.random.default_rng(0)
    center_F, scale_F = random.normal(size=layout.width), random.uniform(0.5, 2, layout.width)
    center_F[layout.blocks[-1].start :], scale_F[layout.blocks[-1].start :] = 0, 1
    return Scaler(center_F=center_F.astype(np.float32), scale_F=scale_F.astype(np.float32))


def inputs(layout: InputLayout, num_rows: int, *, present: bool = True) -> np.ndarray:
    x_BF = np.random.default_rng(1).normal(size=(num_rows, layout.width)).astype(np.float32)
    x_BF[:, layout.blocks[-1].start :] = present
    return x_BF


def part(layout: InputLayout, name: str) -> slice:
    return next(slice(b.start, b.stop) for b in layout.blocks if b.name == name)


def features(num_rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(2)

    def vectors(width: int) -> pa.Array:
        return pa.array(list(random.normal(size=(num_rows, width)).astype(np.float32)), pa.list_(pa.float32()))

    some = [None if k % 3 == 0 else k for k in range(num_rows)]
    return pa.RecordBatch.from_pydict(
        {
            "behaviour_7d": vectors(3), "has_behaviour_7d": [True] * num_rows,
            "behaviour_onboarding": vectors(3), "has_behaviour_onboarding": [True] * num_rows,
            "num_events_7d": list(range(num_rows)), "weight_7d": [1.5] * num_rows, "num_active_days_7d": [1] * num_rows,
            "days_since_last_event": pa.array(some, pa.float64()),
            "days_since_first_event": pa.array(some, pa.float64()),
            "part_of_day_7d": vectors(4), "weekday_7d": vectors(7),
            "num_by_context_7d": pa.array([[("device=phone", 2)]] * num_rows, pa.map_(pa.string(), pa.int64())),
            "attribute_country": ["dk" if k % 2 else None for k in range(num_rows)],
        }
    )  # fmt: skip


def saved(
    folder: Path,
    *,
    space_id: str = "s1",
    layout: InputLayout | None = None,
    model: config.Model = MODEL,
    is_space: bool = False,
    int8_scales: list[float] | None = None,
    **tensors: np.ndarray,
) -> SpaceManifest:
    """Save an artifact in a folder, or (``is_space``) below a root as that of a space."""
    layout = layout or layout_of()
    scaler = scaler_of(layout)
    targets = TargetLayout.of(layout.spec, layout.spec.windows_days[:1]) if model.looks_ahead else NO_TARGETS
    state = {name: t.numpy() for name, t in Autoencoder(layout, model, targets, seed=3).state_dict().items()}
    for name, tensor in state.items():
        if name.startswith(FITTED_OUTSIDE):
            state[name] = np.random.default_rng(4).normal(size=tensor.shape).astype(np.float32)
    manifest = SpaceManifest(
        space_id=space_id, created_at=datetime(2024, 1, 2, tzinfo=UTC), lineage_id="l1", trained_until=date(2024, 1, 1),
        layout=layout, targets=targets, model=model, training=config.Training(),
        metrics={"valid_loss": 0.1 + 0.2}, config_hash="c", code_hash="d",
        int8_scales=int8_scales or [0.125] * model.latent_dim,
    )  # fmt: skip
    written = tensors_of(state, scaler, empty_input(layout, scaler)) | tensors
    return save_space(str(folder), manifest, written) if is_space else save_artifact(str(folder), manifest, written)


def rehash(folder: Path) -> None:
    """Make the hash fit again, as someone who swaps files on purpose would."""
    values = json.loads((folder / "manifest.json").read_text())
    values["content_hash"] = _content_hash((folder / "weights.safetensors").read_bytes(), values)
    (folder / "manifest.json").write_text(json.dumps(values))


def test_an_embedding_does_not_depend_on_its_neighbours_to_the_bit(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    encoder = Encoder(load_artifact(str(tmp_path / "s1")))
    batch = features(ROWS + 300)
    whole_BD = encoder.embed(batch)
    assert whole_BD.shape == (ROWS + 300, 16)
    assert whole_BD.dtype == np.float32
    for start, num_rows in ((0, 1), (700, 1), (ROWS - 1, 2), (5, 999), (ROWS + 299, 1)):
        assert np.array_equal(encoder.embed(batch.slice(start, num_rows)), whole_BD[start : start + num_rows])
    shuffled = np.random.default_rng(4).permutation(batch.num_rows)
    assert np.array_equal(encoder.embed(batch.take(pa.array(shuffled))), whole_BD[shuffled])
    assert encoder.embed(batch.slice(0, 0)).shape == (0, 16)


def test_where_position_matters_rows_are_encoded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "s1")
    artifact, forward = load_artifact(str(tmp_path / "s1")), Encoder._forward
    expected_BD = Encoder(artifact).embed(features(50))

    def uneven(self: Encoder, x_BF: torch.Tensor) -> torch.Tensor:
        return forward(self, x_BF) + torch.arange(len(x_BF))[:, None]

    monkeypatch.setattr(Encoder, "_forward", uneven)
    np.testing.assert_allclose(Encoder(artifact).embed(features(50)), expected_BD, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("taste_modality", [None, "behaviour"])
@pytest.mark.parametrize("model", [LINEAR, MODEL, PAPER, MODEL.model_copy(update={"latent_dim": 6})])
def test_an_embedding_is_scaling_and_the_forward_pass(
    tmp_path: Path, model: config.Model, taste_modality: str | None
) -> None:
    saved(tmp_path / "s1", model=model, layout=layout_of(taste_modality=taste_modality))
    artifact = load_artifact(str(tmp_path / "s1"))
    assert artifact.encoder().has_tastes == (model in (LINEAR, MODEL) and taste_modality is not None)
    assert artifact.encoder().has_propensities == (model in (LINEAR, MODEL))  # 6 dimensions are too few for them
    x_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(features(10)))
    expected_BD = artifact.encoder().encode(torch.from_numpy(x_BF)).numpy()
    assert expected_BD.shape == (10, model.latent_dim)
    np.testing.assert_allclose(Encoder(artifact).embed(features(10)), expected_BD, rtol=1e-5, atol=1e-6)

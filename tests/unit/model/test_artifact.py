"""A space's artifact: it comes back as it was written, its tensors fit its manifest, and it is never overwritten."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.unit.inference.test_model import MODEL, inputs, layout_of, rehash, saved, scaler_of
from tests.unit.model.test_autoencoder import propensities
from userrep.errors import ArtifactError
from userrep.model.artifact import load_artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.weights import FITTED_OUTSIDE

pytestmark = pytest.mark.fast


def test_an_artifact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "s1")
    artifact = load_artifact(str(tmp_path / "s1"), manifest.content_hash)
    assert artifact.manifest == manifest
    assert artifact.layout == layout_of()
    assert np.array_equal(artifact.scaler.scale_F, scaler_of(layout_of()).scale_F)
    x_BF = torch.from_numpy(inputs(artifact.layout, 5))
    drawn = Autoencoder(artifact.layout, MODEL, manifest.targets, seed=3)
    for name, tensor in artifact.tensors.items():
        if name.startswith(FITTED_OUTSIDE):
            setattr(drawn, name, torch.from_numpy(tensor))
    assert torch.equal(artifact.encoder().encode(x_BF), drawn.encode(x_BF))


def test_the_named_dimensions_are_the_propensities_at_the_end_of_an_embedding(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "s1")
    artifact, x_BF = load_artifact(str(tmp_path / "s1")), torch.from_numpy(inputs(manifest.layout, 5))
    z_BD, tensors = artifact.encoder().encode(x_BF).numpy(), artifact.tensors
    named = artifact.manifest.named_dimensions
    assert list(named) == ["propensity_return_7d", "propensity_volume_7d"]
    wanted_BP = propensities(tensors, x_BF.numpy())
    np.testing.assert_allclose(z_BD[:, list(named.values())], wanted_BP, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["s1"]


def test_tastes_are_before_the_named_dimensions(tmp_path: Path) -> None:
    without = saved(tmp_path / "s1")
    manifest = saved(tmp_path / "s2", layout=layout_of(taste_modality="behaviour"))
    assert (without.taste_dimensions, manifest.taste_dimensions) == ((14, 14), (11, 14))
    artifact, x_BF = load_artifact(str(tmp_path / "s2")), inputs(manifest.layout, 5)
    z_BD, tensors = artifact.encoder().encode(torch.from_numpy(x_BF)).numpy(), artifact.tensors
    wanted_BK = x_BF @ tensors["taste_KF"].T + tensors["taste_K"]
    np.testing.assert_allclose(z_BD[:, slice(*manifest.taste_dimensions)], wanted_BK, atol=1e-5)


def test_a_manifest_without_modalities_does_not_fit(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    values = json.loads(path.read_text())
    values["layout"]["spec"]["modalities"] = {}
    path.write_text(json.dumps(values))
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match="layout: the blocks do not match the columns and the vocabulary"):
        load_artifact(str(tmp_path / "s1"))


def test_a_manifest_without_a_block_of_targets_does_not_fit(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    values = json.loads(path.read_text())
    values["targets"]["blocks"] = [block for block in values["targets"]["blocks"] if block["kind"] != "items"]
    path.write_text(json.dumps(values))
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match="targets: the blocks do not match the futures"):
        load_artifact(str(tmp_path / "s1"))


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"an artifact already exists, and artifacts are never overwritten"):
        saved(tmp_path / "s1")


def test_another_space_than_the_registered_one_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"not the expected artifact: expected content hash 0000"):
        load_artifact(str(tmp_path / "s1"), "0" * 64)


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"scale_F": np.ones(3, np.float32)}, r"scale_F: expected shape \(\d+,\), got \(3,\)"),
        ({"extra": np.ones(3, np.float32)}, r"extra: expected shape none, got \(3,\)"),
        ({"center_F": np.zeros(layout_of().width, np.float64)}, r"center_F: expected float32, got float64"),  # type: ignore[dict-item]
        ({"center_F": np.full(layout_of().width, np.nan, np.float32)}, r"invalid values in center_F \(not finite\)"),
        ({"scale_F": np.zeros(layout_of().width, np.float32)}, r"scale_F \(not positive\)"),
    ],
)
def test_tensors_that_do_not_fit_are_neither_written_nor_read(
    tmp_path: Path, tensors: dict[str, np.ndarray], fault: str
) -> None:
    with pytest.raises(ArtifactError, match=fault):
        saved(tmp_path / "s1", **tensors)
    saved(tmp_path / "s1")
    weights = safetensors.numpy.load_file(tmp_path / "s1" / "weights.safetensors") | tensors
    safetensors.numpy.save_file(weights, tmp_path / "s1" / "weights.safetensors")
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=fault):
        load_artifact(str(tmp_path / "s1"))


def test_a_manifest_that_calls_for_absurd_widths_is_refused_before_they_are_allocated(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(
        path.read_text()
        .replace('"hidden_dim":8', '"hidden_dim":1000000000000')
        .replace('"hidden_dim": 8', '"hidden_dim": 1000000000000')
    )
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"encoder_hidden.bias: expected shape \(1000000000000,\), got \(8,\)"):
        load_artifact(str(tmp_path / "s1"))


def test_a_manifest_with_a_fault_is_refused_by_its_place(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"space_id": "../other"}))
    with pytest.raises(ArtifactError, match=r"manifest.json is invalid: space_id: not a valid name"):
        load_artifact(str(tmp_path / "s1"))


def test_an_artifact_without_a_scale_for_every_dimension_is_refused(tmp_path: Path) -> None:
    fault = r"does not match manifest\.json: int8_scales: expected 16, got 15\. Restore the folder from a copy"
    with pytest.raises(ArtifactError, match=fault):
        saved(tmp_path / "s1", int8_scales=[0.5] * 15)

"""The encoder of jobs, services and streams: what it lays out in parts, and what a worker keeps.

That a vector depends on its own row only, and on what forward pass, is in test_model.py.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.unit.inference.test_model import features, layout_of, saved, scaler_of
from userrep import config
from userrep.errors import ArtifactError
from userrep.inference import encoder as module
from userrep.inference.encoder import Encoder, _padded, _padded_scaler, worker_encoder
from userrep.model.artifact import load_artifact

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_rows", [0, 1, 127, 128, 129, 300])
def test_a_batch_of_any_height_is_encoded_as_its_parts(
    tmp_path: Path, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "artifact")
    encoder, users = Encoder(load_artifact(str(tmp_path / "artifact"))), features(300)
    whole_BD = encoder.embed(users)
    assert len(np.unique(whole_BD, axis=0)) == 300
    assert np.array_equal(encoder.embed(users.slice(0, num_rows)), whole_BD[:num_rows])
    monkeypatch.setattr(module, "_INPUT_ROWS", 128)  # 300 rows take three parts, the last of 44
    assert np.array_equal(encoder.embed(users.slice(300 - num_rows)), whole_BD[300 - num_rows :])


def test_a_vector_has_the_dimensions_of_the_space_whatever_they_are_padded_to(tmp_path: Path) -> None:
    for latent_dim in (3, 16, 17):
        model = config.Model(latent_dim=latent_dim, hidden_dim=latent_dim - 3, decoder_dim=4)
        saved(tmp_path / f"{latent_dim}", model=model)
        artifact = load_artifact(str(tmp_path / f"{latent_dim}"))
        batch, layout = features(7), artifact.layout
        x_BF = artifact.scaler.apply(layout, layout.raw(batch))
        expected_BD = artifact.encoder().encode(torch.from_numpy(x_BF)).numpy()
        np.testing.assert_allclose(Encoder(artifact).embed(batch), expected_BD, rtol=1e-4, atol=1e-5)


def test_padding_adds_zeros_up_to_a_multiple_of_16() -> None:
    padded = _padded(torch.ones(3, 17))
    assert padded.shape == (16, 32)
    assert (padded.sum(), padded[:3, :17].sum()) == (51, 51)
    assert _padded(torch.ones(16)).shape == (16,)
    layout = layout_of()
    scaler, wide = scaler_of(layout), _padded_scaler(scaler_of(layout))
    assert len(wide.center_F) == len(wide.scale_F) == 32
    assert layout.width < 32
    assert np.array_equal(wide.scale_F[: layout.width], scaler.scale_F)
    assert set(wide.center_F[layout.width :]) == {0}
    assert set(wide.scale_F[layout.width :]) == {1}


def test_an_encoder_changes_neither_its_users_nor_its_earlier_vectors(tmp_path: Path) -> None:
    saved(tmp_path / "artifact")
    encoder, users = Encoder(load_artifact(str(tmp_path / "artifact"))), features(200)
    before = pa.RecordBatch.from_pylist(users.to_pylist(), users.schema)
    first_BD = encoder.embed(users)
    kept_BD = first_BD.copy()
    encoder.embed(users.slice(50))
    assert np.array_equal(first_BD, kept_BD)
    assert users.equals(before)


def test_a_worker_loads_an_artifact_once_and_only_with_the_expected_hash(tmp_path: Path) -> None:
    content_hash = saved(tmp_path / "artifact").content_hash
    folder = str(tmp_path / "artifact")
    torch.set_num_threads(2)
    encoder = worker_encoder(folder, content_hash)
    assert torch.get_num_threads() == 1
    assert worker_encoder(folder, content_hash) is encoder
    with pytest.raises(ArtifactError, match="not the expected artifact: expected content hash"):
        worker_encoder(folder, "0" * len(content_hash))


def test_an_encoder_rounds_to_the_numbers_of_its_storage_type(tmp_path: Path) -> None:
    saved(tmp_path / "artifact", int8_scales=[0.125] * 16)
    artifact, users = load_artifact(str(tmp_path / "artifact")), features(200)
    exact_BD = Encoder(artifact).embed(users)
    assert np.array_equal(Encoder(artifact, "float16").embed(users), exact_BD.astype(np.float16))
    steps_BD = np.clip(np.rint(exact_BD * 8), -127, 127)
    assert np.array_equal(Encoder(artifact, "int8").embed(users), steps_BD / 8)

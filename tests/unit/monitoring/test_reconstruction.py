"""The error with which a space reconstructs its inputs, summed by block over rows."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.unit.inference.test_model import features, part, saved
from userrep.errors import ArtifactError
from userrep.model.artifact import Artifact, load_artifact
from userrep.monitoring.input_drift import reconstruction_errors

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore the number of torch's threads, which loading sets to one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def space(tmp_path: Path) -> Artifact:
    saved(tmp_path / "s1")
    return load_artifact(str(tmp_path / "s1"))


@pytest.fixture
def errors(tmp_path: Path, space: Artifact) -> Callable[[pa.RecordBatch], np.ndarray]:
    return partial(reconstruction_errors, folder=str(tmp_path / "s1"), content_hash=space.manifest.content_hash)


def test_errors_are_sums_over_rows_of_the_mean_square_of_each_block(
    space: Artifact, errors: Callable[[pa.RecordBatch], np.ndarray]
) -> None:
    batch, layout = features(20), space.layout
    x_BF = space.scaler.apply(layout, layout.raw(batch))
    y_BF = space.encoder()(torch.from_numpy(x_BF)).reconstruction_BF.numpy()
    found = dict(zip((block.name for block in layout.blocks), errors(batch), strict=True))
    for name in ("behaviour_7d", "num_events_7d", "flags"):
        square_BF = (y_BF - x_BF)[:, part(layout, name)] ** 2
        assert found[name] == pytest.approx(square_BF.mean(axis=1).sum(), rel=1e-5)


def test_rows_without_a_block_add_no_error_to_it(
    space: Artifact, errors: Callable[[pa.RecordBatch], np.ndarray]
) -> None:
    batch = features(30)
    has_it = batch.schema.get_field_index("has_behaviour_7d")
    names = [block.name for block in space.layout.blocks]
    absent = batch.set_column(has_it, "has_behaviour_7d", pa.array([k < 10 for k in range(30)]))
    k = names.index("behaviour_7d")
    assert errors(absent)[k] == pytest.approx(errors(batch.slice(0, 10))[k], rel=1e-5)
    assert errors(absent.slice(10))[k] == 0


def test_errors_of_parts_add_up_to_those_of_many_rows(errors: Callable[[pa.RecordBatch], np.ndarray]) -> None:
    batch = features(1500)  # more than are encoded at once
    parts = [errors(batch.slice(start, 400)) for start in range(0, 1500, 400)]
    np.testing.assert_allclose(errors(batch), np.sum(parts, axis=0), rtol=1e-5)


def test_another_artifact_than_the_registry_has_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    assert load_artifact(str(tmp_path / "s1"))
    with pytest.raises(ArtifactError, match="not the expected artifact: expected content hash"):
        reconstruction_errors(features(1), str(tmp_path / "s1"), "0" * 64)

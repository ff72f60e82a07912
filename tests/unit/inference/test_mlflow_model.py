"""What MLflow loads a space by: the artifact with the hash that was logged, and no other."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.inference.test_model import features, saved
from userrep.errors import ArtifactError
from userrep.inference.encoder import Encoder
from userrep.inference.mlflow_model import _load_pyfunc
from userrep.model.artifact import load_artifact

pytestmark = pytest.mark.fast


def test_a_logged_folder_is_loaded_as_the_model_of_its_space(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "artifact")
    model = _load_pyfunc(str(tmp_path / "artifact"), {"content_hash": manifest.content_hash, "other": 1})
    z_BD = model.predict(features(9).to_pandas())
    assert np.array_equal(z_BD, Encoder(load_artifact(str(tmp_path / "artifact"))).embed(features(9)))


def test_another_artifact_than_the_one_that_was_logged_is_refused(tmp_path: Path) -> None:
    logged = saved(tmp_path / "logged")
    saved(tmp_path / "other", empty_F=np.ones(logged.layout.width, np.float32))
    with pytest.raises(ArtifactError, match="not the expected artifact: expected content hash"):
        _load_pyfunc(str(tmp_path / "other"), {"content_hash": logged.content_hash})

"""What is logged as an MLflow model. Real models are logged and loaded in test_tracking.py."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.unit.features.test_layout import LAYOUT, SPEC
from tests.unit.inference.test_model import saved
from userrep.inference.model import EmbeddingModel
from userrep.tracking import registered_model
from userrep.tracking.registered_model import write_model

pytestmark = pytest.mark.fast


def test_the_example_is_a_frame_that_the_model_takes(tmp_path: Path) -> None:
    saved(tmp_path / "artifact", layout=LAYOUT)
    users = registered_model._example(LAYOUT)
    assert list(users.columns) == [name for name, _ in SPEC.columns() if name != "is_exact"]
    assert [dict(row) for row in users["num_by_context_7d"]] == [{"device=phone": 7}, {}]
    assert all(type(row) is dict for row in users["num_by_context_7d"])
    z_BD = EmbeddingModel.load(str(tmp_path / "artifact")).predict(users)
    assert np.isfinite(z_BD).all()
    assert not np.array_equal(z_BD[0], z_BD[1])


def test_a_model_is_the_artifact_s_folder_a_loader_and_its_hash_and_pins_what_loading_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyfunc: Any = ModuleType("mlflow.pyfunc")
    mlflow: Any = ModuleType("mlflow")
    written: dict[str, Any] = {}
    pyfunc.save_model = lambda path, **more: written.update({"path": path, **more})
    mlflow.pyfunc = pyfunc
    for name, module in (("mlflow", mlflow), ("mlflow.pyfunc", pyfunc)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(registered_model, "_signature", lambda manifest: "signature")
    manifest = saved(tmp_path / "artifact", layout=LAYOUT)
    write_model("there", folder=str(tmp_path / "artifact"), manifest=manifest, model="about")
    assert (written["path"], written["data_path"]) == ("there", str(tmp_path / "artifact"))
    assert written["loader_module"] == "userrep.inference.mlflow_model"
    assert written["model_config"] == {"content_hash": manifest.content_hash}
    assert written["mlflow_model"] == "about"
    assert f"numpy=={np.__version__}" in written["pip_requirements"]
    assert written["pip_requirements"][0].startswith("userrep==")
    assert all("==" in requirement for requirement in written["pip_requirements"])

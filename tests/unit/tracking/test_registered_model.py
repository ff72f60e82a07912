"""What is logged as an MLflow model. Real models are logged and loaded in test_tracking.py."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.features.test_layout import ARROW, LAYOUT, SPEC, VOCABULARY
from tests.unit.inference.test_model import saved
from userrep.features.layout import InputLayout
from userrep.inference.model import EmbeddingModel
from userrep.inference.to_arrow import dicts_as_arrow, frame_as_arrow
from userrep.tracking import registered_model
from userrep.tracking.registered_model import example_users, pyfunc_model

pytestmark = pytest.mark.fast


def test_the_example_is_a_frame_that_the_model_takes(tmp_path: Path) -> None:
    saved(tmp_path / "artifact", layout=LAYOUT)
    users = example_users(LAYOUT)
    assert list(users.columns) == [name for name, _ in SPEC.columns() if name != "is_exact"]
    assert users["num_by_context_7d"].tolist() == [{"device=phone": 7}, {}]
    z_BD = EmbeddingModel.load(str(tmp_path / "artifact")).predict(users)
    assert np.isfinite(z_BD).all()
    assert not np.array_equal(z_BD[0], z_BD[1])


def test_an_example_has_the_columns_of_the_model_and_no_ids() -> None:
    users = example_users(LAYOUT)
    maps = [name for name, kind in SPEC.columns() if kind.startswith("MAP")]
    users[maps] = users[maps].map(lambda counts: list(counts.items()))  # as Arrow stores them
    schema = pa.schema([(name, ARROW[kind]) for name, kind in SPEC.columns() if name != "is_exact"])
    assert pa.Table.from_pandas(users.drop(columns=maps)).schema.equals(
        pa.schema([field for field in schema if field.name not in maps])
    )
    assert pa.Table.from_pandas(users, schema).num_rows == 2


def test_the_first_user_has_an_event_a_day_and_the_first_value_of_each_vocabulary() -> None:
    known, _ = example_users(LAYOUT).to_dict("records")
    assert [known[f"num_events_{days}d"] for days in (2, 7)] == [2, 7]
    assert [known[f"weight_{days}d"] for days in (2, 7)] == [2.0, 7.0]
    assert [known[f"days_since_{what}"] for what in ("last_event", "first_event", "registration")] == [1.0, 1.0, 1.0]
    assert (known["attribute_country"], known["num_by_context_7d"]) == ("de", {"device=phone": 7})
    assert known["content_2d"] == pytest.approx([1 / 3] * 3)
    assert sum(known["weekday_7d"]) == pytest.approx(1)
    assert known["has_content_2d"] is known["has_behaviour_onboarding"] is True


def test_nothing_is_known_of_the_second_user() -> None:
    unknown = frame_as_arrow(example_users(LAYOUT)[1:], SPEC)
    assert np.array_equal(LAYOUT.raw(unknown), LAYOUT.raw(dicts_as_arrow([{}], SPEC)))


def test_an_example_is_the_same_again_and_follows_the_vocabulary() -> None:
    assert example_users(LAYOUT).to_json() == example_users(LAYOUT).to_json()
    other = InputLayout.of(SPEC, VOCABULARY | {"attribute_country": ["se", "(other)"]})
    assert example_users(other)["attribute_country"].tolist() == ["se", None]


def test_a_model_is_the_artifact_s_folder_a_loader_and_its_hash_and_pins_what_loading_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered_model, "_signature", lambda manifest: "signature")
    manifest = saved(tmp_path / "artifact", layout=LAYOUT)
    written = pyfunc_model(str(tmp_path / "artifact"), manifest)
    assert written["data_path"] == str(tmp_path / "artifact")
    assert written["loader_module"] == "userrep.inference.mlflow_model"
    assert written["model_config"] == {"content_hash": manifest.content_hash}
    assert f"numpy=={np.__version__}" in written["pip_requirements"]
    assert written["pip_requirements"][0].startswith("userrep==")
    assert all("==" in requirement for requirement in written["pip_requirements"])

"""The pandas UDF of notebooks, called as a worker calls it. In Spark it is tested in test_inference.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.features.test_layout import LAYOUT
from tests.unit.inference.test_inference import as_arrow, expected, random_users, same_bits
from tests.unit.inference.test_model import saved
from userrep.errors import ArtifactError, UsageError
from userrep.inference.encoder import worker_encoder
from userrep.inference.model import embedding_udf

pytestmark = pytest.mark.fast


@pytest.fixture
def space(tmp_path: Path) -> Path:
    saved(tmp_path / "s1", layout=LAYOUT)
    return tmp_path / "s1"


@pytest.fixture(autouse=True)
def _no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what asks a session to read the type that a UDF returns."""
    monkeypatch.setattr("pyspark.sql.pandas.functions.pandas_udf", lambda f, kind: SimpleNamespace(func=f, kind=kind))


def called(udf: Any, *frames: Any) -> list[Any]:
    assert udf.kind == "array<float>"
    return list(udf.func(iter(frames)))


def test_batches_of_structs_become_series_of_the_batch_s_vectors(space: Path) -> None:
    users = random_users(30, seed=2)
    frame = as_arrow(users).to_pandas().assign(label=1)
    series = called(embedding_udf(str(space)), frame[:20], frame[20:20], frame[20:])
    assert [len(one) for one in series] == [20, 0, 10]
    assert same_bits(np.stack([z_D for one in series for z_D in one]), expected(space, users))


def test_a_worker_refuses_a_struct_without_a_column_and_weights_that_were_changed(space: Path) -> None:
    udf, frame = embedding_udf(str(space)), as_arrow(random_users(3, 0)).to_pandas()
    with pytest.raises(UsageError, match=r"users: missing column weight_7d\. Add all feature columns"):
        called(udf, frame.drop(columns="weight_7d"))
    worker_encoder.cache_clear()
    (space / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: No such file"):
        called(udf, frame)


def test_an_artifact_that_is_not_whole_is_refused_where_the_udf_is_made(space: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no-space/manifest\.json: No such file"):
        embedding_udf(str(space.with_name("no-space")))

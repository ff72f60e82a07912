"""Models as JSON and as folders of Spark ML, read without Spark. The folders have the layout that Spark 4.2 writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.errors import UsageError
from userrep.spaces.consumer_model import ConsumerModel, read_model

pytestmark = pytest.mark.fast

VECTOR = pa.struct(
    {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
)
MATRIX = pa.struct(
    {
        "type": pa.int8(), "numRows": pa.int32(), "numCols": pa.int32(), "colPtrs": pa.list_(pa.int32()),
        "rowIndices": pa.list_(pa.int32()), "values": pa.list_(pa.float64()), "isTransposed": pa.bool_(),
    }
)  # fmt: skip
LOGISTIC = pa.schema({"numClasses": pa.int32(), "interceptVector": VECTOR, "coefficientMatrix": MATRIX})
LINEAR = pa.schema({"intercept": pa.float64(), "coefficients": VECTOR, "scale": pa.float64()})


def vector(*values: float) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def matrix(rows: int, values: list[float], *, is_transposed: bool = True, **sparse: list[int]) -> dict[str, Any]:
    return {
        "type": 0 if sparse else 1, "numRows": rows, "numCols": 3, "colPtrs": None, "rowIndices": None,
        "values": values, "isTransposed": is_transposed, **sparse,
    }  # fmt: skip


def stage(folder: Path, kind: str, row: dict[str, Any] | None = None, **params: Any) -> Path:
    """Write a stage as Spark ML does."""
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "_SUCCESS").touch()
    values = {"class": f"org.apache.spark.ml.{kind}", "uid": "x", "paramMap": params}
    (folder / "metadata" / "part-00000-a.txt").write_text(json.dumps(values))
    if row is not None:
        (folder / "data").mkdir()
        schema = LINEAR if "scale" in row else LOGISTIC
        pq.write_table(pa.Table.from_pylist([row], schema), folder / "data" / "part-00000-b.snappy.parquet")
    return folder


LOGISTIC_ROW = {"numClasses": 2, "interceptVector": vector(0.5), "coefficientMatrix": matrix(1, [1.0, 2.0, 3.0])}


def test_a_model_is_read_from_json(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"weights": [1, -2.5], "intercept": 0.25, "space_id": "s001-a"}))
    model = read_model(str(tmp_path / "m.json"))
    assert (model.weights, model.intercept, model.space_id) == ([1.0, -2.5], 0.25, "s001-a")


@pytest.mark.parametrize(
    ("row", "weights", "intercept"),
    [
        (LOGISTIC_ROW, [1, 2, 3], 0.5),
        (LOGISTIC_ROW | {"coefficientMatrix": matrix(1, [5.0], colPtrs=[0, 1], rowIndices=[2])}, [0, 0, 5], 0.5),
        (
            LOGISTIC_ROW | {"coefficientMatrix": matrix(2, [1.0, 2, 3, 4, 6, 8]), "interceptVector": vector(1, 4)},
            [3, 4, 5],
            3,
        ),
        (
            LOGISTIC_ROW
            | {
                "coefficientMatrix": matrix(2, [1.0, 4, 2, 6, 3, 8], is_transposed=False),
                "interceptVector": {"type": 0, "size": 2, "indices": [1], "values": [3.0]},
            },
            [3, 4, 5],
            3,
        ),
        ({"intercept": 2.0, "coefficients": vector(7, 8, 9), "scale": 1.0}, [7, 8, 9], 2),
    ],
    ids=["binomial", "sparse", "two rows", "by column", "linear"],
)
def test_a_model_of_spark_is_read_without_spark(
    tmp_path: Path, row: dict[str, Any], weights: list[float], intercept: float
) -> None:
    kind = "regression.LinearRegressionModel" if "scale" in row else "classification.LogisticRegressionModel"
    model = read_model(str(stage(tmp_path / "m", kind, row)))
    assert (model.weights, model.intercept, model.space_id) == (weights, intercept, None)


@pytest.mark.parametrize(
    ("params", "space_id"),
    [({"space": "s001-a"}, "s001-a"), ({"spaceId": "s002-b"}, "s002-b"), ({"space": "serving"}, None)],
)
def test_a_pipeline_names_its_space_by_its_join(tmp_path: Path, params: dict[str, str], space_id: str | None) -> None:
    stage(tmp_path / "m", "PipelineModel")
    stage(tmp_path / "m" / "stages" / "0_EmbeddingJoin_1", "EmbeddingJoin", **params)
    stage(tmp_path / "m" / "stages" / "1_LR_2", "classification.LogisticRegressionModel", LOGISTIC_ROW)
    model = read_model(str(tmp_path / "m"))
    assert (model.weights, model.space_id) == ([1, 2, 3], space_id)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("[", "Invalid JSON"),
        ('{"weights": []}', "weights: List should have at least 1 item"),
        ('{"weights": [1, NaN]}', r"weights\.1: Input should be a finite number"),
        ('{"weights": ["a"]}', r"weights\.0: Input should be a valid number"),
        ('{"weights": [1], "space_id": "../x"}', "space_id: "),
        ('{"intercept": 1}', "weights: Field required"),
    ],
)
def test_what_is_no_model_is_refused_with_what_a_model_is(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "m.json").write_text(text)
    with pytest.raises(UsageError, match=rf"--model .*{said}.*Name a JSON file with weights, intercept and space_id"):
        read_model(str(tmp_path / "m.json"))


def test_models_with_several_scores_or_other_inputs_are_refused(tmp_path: Path) -> None:
    three = LOGISTIC_ROW | {"numClasses": 3, "coefficientMatrix": matrix(3, [0.0] * 9)}
    with pytest.raises(UsageError, match="3 classes, expected 2"):
        read_model(str(stage(tmp_path / "three", "classification.LogisticRegressionModel", three)))
    with pytest.raises(UsageError, match="a RandomForestClassificationModel with stages none"):
        read_model(str(stage(tmp_path / "forest", "classification.RandomForestClassificationModel")))
    stage(tmp_path / "m", "PipelineModel")
    stage(tmp_path / "m" / "stages" / "0_VectorAssembler_1", "feature.VectorAssembler")
    stage(tmp_path / "m" / "stages" / "1_LR_2", "classification.LogisticRegressionModel", LOGISTIC_ROW)
    with pytest.raises(UsageError, match="a PipelineModel with stages VectorAssembler, LogisticRegressionModel"):
        read_model(str(tmp_path / "m"))


def test_a_model_fits_its_own_space_and_one_without_a_space_each_of_its_width() -> None:
    model = ConsumerModel(weights=[1.0, -2.0], intercept=0.5, space_id="s001-a")
    model.check_fits("s001-a", 2)
    model.model_copy(update={"space_id": None}).check_fits("s002-b", 2)
    with pytest.raises(UsageError, match="trained on space s001-a, not on s002-b"):
        model.check_fits("s002-b", 2)
    with pytest.raises(UsageError, match="has 2 weights, but vectors of space s001-a have 3 numbers"):
        model.check_fits("s001-a", 3)
    assert model.scores(np.array([[1, 1], [2, 0]], np.float32)).tolist() == [-0.5, 2.5]

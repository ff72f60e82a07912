"""A consumer's linear or logistic model: from a JSON file, or from the folder of a fitted Spark ML model."""

import json
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from userrep.config import Name
from userrep.errors import UsageError, first_line, in_line
from userrep.spaces.registry_state import SERVING
from userrep.store.filesystem import absolute, exists, folder_names, open_parquet, read_bytes

_MOST_BYTES = 2**24  # of a model's JSON
_JOIN = "EmbeddingJoin"
_REGRESSIONS = ("LogisticRegressionModel", "LinearRegressionModel")
_CURE = (
    "Name a JSON file with weights, intercept and space_id, or the folder of a Spark ML LogisticRegressionModel, "
    "LinearRegressionModel, or pipeline of EmbeddingJoin and one of them"
)
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class ConsumerModel(BaseModel):
    """The score of a user: ``vector @ weights + intercept``. For a logistic model, that is the log odds.

    ``space_id``: the space of the vectors that the model was trained on; None if the model does not name one.
    """

    model_config = ConfigDict(frozen=True)

    weights: list[_Finite] = Field(min_length=1)
    intercept: _Finite = 0.0
    space_id: Name | None = None

    def check_fits(self, space_id: str, dim: int) -> None:
        """Raise UsageError if the model is of another space, or has another number of weights than its vectors."""
        if self.space_id not in (None, space_id):
            raise UsageError(
                f"--model: the model was trained on space {self.space_id}, not on {space_id}. Vectors of two spaces "
                f"cannot be mixed. Name a model of {space_id}, or the space {self.space_id}."
            )
        if len(self.weights) != dim:
            raise UsageError(
                f"--model: the model has {len(self.weights)} weights, but vectors of space {space_id} have {dim} "
                "numbers. Name a model of the vector alone."
            )

    def scores(self, z_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the score of each vector."""
        scores_N: NDArray[np.float64] = z_ND.astype(np.float64) @ np.array(self.weights) + self.intercept
        return scores_N


def read_model(path: str) -> ConsumerModel:
    """Read a model, without Spark. Nothing in the file or folder is executed.

    Raises
    ------
    UsageError
        If there is no such model, or it is not linear with one score.
    """
    uri = absolute(path)
    try:
        if exists(f"{uri}/metadata"):
            return _from_spark(uri)
        return ConsumerModel.model_validate_json(read_bytes(uri, max_bytes=_MOST_BYTES))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(in_line(str(part)) for part in fault["loc"])
        raise UsageError(f"--model {path}: {f'{where}: ' if where else ''}{fault['msg']}. {_CURE}.") from None
    except (OSError, ValueError, LookupError, TypeError, AssertionError, pa.ArrowException) as error:
        reason = in_line(first_line(error))
        raise UsageError(f"--model {path}: not readable as a linear model ({reason}). {_CURE}.") from None


def _from_spark(folder: str) -> ConsumerModel:
    """Read a model of Spark ML, or the only regression and the only EmbeddingJoin of a pipeline.

    Raises ValueError if the folder has no such model, LookupError if it lacks a file or field.
    """
    metadata = _metadata(folder)
    stages = {folder: metadata}
    if _kind(metadata) not in _REGRESSIONS:
        paths = [f"{folder}/stages/{name}" for name in folder_names(f"{folder}/stages")]
        stages = {path: _metadata(path) for path in paths}
    kinds = [_kind(stage) for stage in stages.values()]
    regressions = [path for path, stage in stages.items() if _kind(stage) in _REGRESSIONS]
    if len(regressions) != 1 or not {*kinds} <= {_JOIN, *_REGRESSIONS}:
        raise ValueError(f"a {_kind(metadata)} with stages {', '.join(kinds) or 'none'}")
    params: dict[str, Any] = next((stage["paramMap"] for stage in stages.values() if _kind(stage) == _JOIN), {})
    space_id = params.get("spaceId") or params.get("space", SERVING)
    return ConsumerModel.model_validate(
        _regression(regressions[0]) | {"space_id": None if space_id == SERVING else space_id}
    )


def _kind(metadata: dict[str, Any]) -> str:
    return str(metadata["class"]).rpartition(".")[2]


def _metadata(folder: str) -> dict[str, Any]:
    name = next((name for name in folder_names(f"{folder}/metadata") if name.startswith("part-")), None)
    if name is None:
        raise LookupError("no part file in metadata")
    values: dict[str, Any] = json.loads(read_bytes(f"{folder}/metadata/{name}", max_bytes=_MOST_BYTES))
    return values


def _regression(folder: str) -> dict[str, Any]:
    """Return weights and intercept. If both classes have a score, these are those of the difference."""
    from pyspark.ml.linalg import MatrixUDT, VectorUDT  # takes a second, and JSON files do not need it

    def array(value: dict[str, Any], kind: type[MatrixUDT | VectorUDT]) -> NDArray[np.float64]:
        return np.asarray(kind().deserialize(tuple(value[name] for name in kind.sqlType().names)).toArray())

    names = [name for name in folder_names(f"{folder}/data") if name.startswith("part-")]
    (row,) = [row for name in names for row in open_parquet(f"{folder}/data/{name}").read().to_pylist()]
    if "coefficients" in row:
        return {"weights": array(row["coefficients"], VectorUDT).tolist(), "intercept": row["intercept"]}
    weights, intercepts = array(row["coefficientMatrix"], MatrixUDT), array(row["interceptVector"], VectorUDT)
    if row["numClasses"] != 2:
        raise ValueError(f"{row['numClasses']} classes, expected 2")
    if len(weights) == 2:
        weights, intercepts = np.diff(weights, axis=0), np.diff(intercepts)
    return {"weights": weights[0].tolist(), "intercept": float(intercepts[0])}

"""What MLflow loads a space by: ``python_function`` over the artifact's own two files. It needs no MLflow itself.

Shapes: B rows, D latent dimensions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from userrep.features.spec import FeatureSpec
from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact


def input_columns(spec: FeatureSpec) -> dict[str, str]:
    """Return the columns of user features that a model reads, in order, with their SQL types."""
    return {name: kind for name, kind in spec.columns() if name != "is_exact"}


class EmbeddingModel:
    """User features in pandas to embeddings, by the encoder of batch jobs and streams."""

    def __init__(self, encoder: Encoder, spec: FeatureSpec) -> None:
        self._encoder, self._columns = encoder, input_columns(spec)

    def predict(self, users: pd.DataFrame) -> NDArray[np.float32]:
        """Return z_BD of rows of user features, to the bit what ``Encoder`` makes of the same rows in Arrow.

        ``users``: as of Spark's ``toPandas`` or Arrow's ``to_pandas``. Lists may be arrays, maps may be dicts or lists
        of pairs; what is null may be None or NaN. Other columns than the model's are not looked at. Cost: one Python
        object for each list and map.
        """
        arrays = [_AS_ARROW.get(kind, _plain)(users[name]) for name, kind in self._columns.items()]
        return self._encoder.embed(pa.RecordBatch.from_arrays(arrays, list(self._columns)))


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any]) -> EmbeddingModel:
    """Build the model, for ``mlflow.pyfunc.load_model``; ``model_config`` has the content hash that was logged.

    Raises ArtifactError if the files are not what was logged.
    """
    artifact = load_artifact(data_path, model_config["content_hash"])
    return EmbeddingModel(Encoder(artifact), artifact.layout.spec)


def _plain(column: pd.Series) -> pa.Array:
    return pa.array(column, from_pandas=True)


def _text(column: pd.Series) -> pa.Array:
    return pa.array(column, pa.string(), from_pandas=True)


def _lists(column: pd.Series) -> pa.ListArray:
    rows = [np.asarray(row, np.float32) for row in column]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.empty(0, np.float32), *rows])))


def _maps(column: pd.Series) -> pa.MapArray:
    rows = [row.items() if isinstance(row, Mapping) else row for row in column]
    return pa.array([[(key, count) for key, count in row] for row in rows], pa.map_(pa.string(), pa.int64()))


_AS_ARROW: dict[str, Callable[[pd.Series], pa.Array]] = {
    "ARRAY<FLOAT>": _lists, "MAP<STRING,BIGINT>": _maps, "STRING": _text,
}  # fmt: skip

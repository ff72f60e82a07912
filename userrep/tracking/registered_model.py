"""A space's artifact as an MLflow model: its two files, a signature, an example and a loader; no pickle and no code."""

from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from userrep import __version__
from userrep.features.layout import InputLayout
from userrep.inference.to_arrow import input_columns
from userrep.model.artifact import SpaceManifest

_REQUIRED = ("mlflow-skinny", "numpy", "pandas", "pydantic", "pyarrow", "pyyaml", "safetensors", "torch")


def pyfunc_model(folder: str, manifest: SpaceManifest) -> dict[str, Any]:
    """Return the arguments of ``mlflow.pyfunc.save_model`` for the artifact in a folder."""
    return {
        "loader_module": "userrep.inference.mlflow_model",
        "data_path": folder,
        "model_config": {"content_hash": manifest.content_hash},
        "signature": _signature(manifest),
        "input_example": example_users(manifest.layout),
        "pip_requirements": [f"userrep=={__version__}", *(f"{name}=={version(name)}" for name in _REQUIRED)],
    }


def _signature(manifest: SpaceManifest) -> Any:
    """Return the model's signature: input columns and output vectors.

    Maps have the type "any", because MLflow would refuse the lists of pairs that Arrow's ``to_pandas`` returns. Lists
    have doubles, because Spark passes Python floats; float32 values fit too.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import AnyType, Array

    kinds = {
        "ARRAY<FLOAT>": Array(DataType.double), "BOOLEAN": DataType.boolean, "BIGINT": DataType.long,
        "DOUBLE": DataType.double, "STRING": DataType.string, "MAP<STRING,BIGINT>": AnyType(),
    }  # fmt: skip
    columns = [ColSpec(kinds[kind], name) for name, kind in input_columns(manifest.layout.spec).items()]
    vectors = TensorSpec(np.dtype(np.float32), (-1, manifest.model.latent_dim))
    return ModelSignature(inputs=Schema(columns), outputs=Schema([vectors]))


def example_users(layout: InputLayout) -> pd.DataFrame:
    """Return two invented users as rows of user features: one with an event a day, and one without any data.

    They are the example input of a logged model. MLflow would keep the data of real users after their erasure.
    """
    spec = layout.spec
    widths = {block.column: block.dim for block in spec.pooled} | spec.shares
    columns: dict[str, list[object]] = {}
    for name, kind in input_columns(spec).items():
        if kind == "ARRAY<FLOAT>":
            width = widths[name]
            columns[name] = [np.full(width, 1 / width, np.float32), np.zeros(width, np.float32)]
        elif kind == "MAP<STRING,BIGINT>":
            columns[name] = [{layout.vocabulary[name][0]: spec.longest}, {}]
        elif kind == "STRING":
            columns[name] = [layout.vocabulary[name][0], None]
        elif kind == "BOOLEAN":
            columns[name] = [True, False]
        elif name.startswith("days_since_"):
            columns[name] = [1.0, None]
        else:
            days = next(days for days in spec.windows if name.endswith(f"_{days}d"))
            columns[name] = [float(days), 0.0] if kind == "DOUBLE" else [days, 0]
    return pd.DataFrame(columns)

"""A space's artifact as an MLflow model: its two files, a signature, an example and a loader; no pickle and no code."""

from importlib.metadata import version
from typing import Any

import pandas as pd

from userrep import __version__
from userrep.features.layout import InputLayout
from userrep.inference.to_arrow import input_columns
from userrep.model.artifact import SpaceManifest
from userrep.tracking.example import invented_users

_REQUIRED = ("mlflow-skinny", "numpy", "pandas", "pydantic", "pyarrow", "pyyaml", "safetensors", "torch")


def write_model(path: str, *, folder: str, manifest: SpaceManifest, model: Any) -> None:
    """Write the model folder to log. ``folder``: the artifact. ``model``: an MLflow ``Model``, which is filled in."""
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        path,
        loader_module="userrep.inference.mlflow_model",
        data_path=folder,
        model_config={"content_hash": manifest.content_hash},
        mlflow_model=model,
        signature=_signature(manifest),
        input_example=_example(manifest.layout),
        pip_requirements=[f"userrep=={__version__}", *(f"{name}=={version(name)}" for name in _REQUIRED)],
    )


def _signature(manifest: SpaceManifest) -> Any:
    """Return the model's signature: input columns and output vectors.

    Maps have the type "any", because MLflow would refuse the lists of pairs that Arrow's ``to_pandas`` returns. Lists
    have doubles, because Spark passes Python floats; float32 values fit too.
    """
    import numpy as np
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


def _example(layout: InputLayout) -> pd.DataFrame:
    users = invented_users(layout).to_pandas()
    for name, kind in input_columns(layout.spec).items():
        if kind.startswith("MAP"):
            users[name] = [dict(pairs) for pairs in users[name]]
    return users

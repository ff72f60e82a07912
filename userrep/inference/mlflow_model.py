"""Loader module of MLflow's ``python_function`` flavor for a space's artifact. It does not import MLflow."""

from collections.abc import Mapping
from typing import Any

from userrep.inference.model import EmbeddingModel


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any]) -> EmbeddingModel:
    """Load the model for ``mlflow.pyfunc.load_model``. ``model_config`` contains the logged content hash.

    A caller of ``load_model`` can add ``storage`` to it, the type of the vectors: float32 by default, as in
    ``EmbeddingModel.load``.

    Raises ArtifactError if the files do not have this hash.
    """
    return EmbeddingModel.load(data_path, model_config["content_hash"], storage=model_config.get("storage", "float32"))

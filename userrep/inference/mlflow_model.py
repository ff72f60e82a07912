"""What MLflow loads a space by: ``python_function`` over the artifact's own two files. It needs no MLflow itself."""

from collections.abc import Mapping
from typing import Any

from userrep.inference.model import EmbeddingModel


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any]) -> EmbeddingModel:
    """Load the model, for ``mlflow.pyfunc.load_model``; ``model_config`` has the content hash that was logged.

    Raises ArtifactError if the files are not what was logged.
    """
    return EmbeddingModel.load(data_path, model_config["content_hash"])

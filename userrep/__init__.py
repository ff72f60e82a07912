"""One frozen user embedding for many downstream models.

The public API for consumers of embeddings:

- ``open`` returns an installation's embeddings: joins with labels and look-ups, for pandas and Spark.
- ``EmbeddingJoin`` adds embeddings to labels in a Spark ML pipeline.
- ``EmbeddingModel`` computes embeddings from features without Spark.
- ``embedding_udf`` computes them in DataFrames and SQL.
- ``load_config`` reads a configuration file.

Each name is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from userrep.client.embeddings import open  # noqa: A004
    from userrep.config import load_config
    from userrep.inference.model import EmbeddingModel, embedding_udf
    from userrep.joins.embedding_join import EmbeddingJoin

__all__ = ["EmbeddingJoin", "EmbeddingModel", "embedding_udf", "load_config", "open"]
__version__ = "0.2.0"

_MODULES = {
    "EmbeddingJoin": "userrep.joins.embedding_join",
    "EmbeddingModel": "userrep.inference.model",
    "embedding_udf": "userrep.inference.model",
    "load_config": "userrep.config",
    "open": "userrep.client.embeddings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'userrep' has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from userrep.errors import missing_package

        raise ImportError(f"userrep.{name}: {missing_package(error) or error}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

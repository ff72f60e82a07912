"""The encoder for jobs (Arrow batches), notebooks (a pandas UDF) and services (plain Python)."""

from userrep.inference.model import EmbeddingModel
from userrep.inference.udf import embedding_udf

__all__ = ["EmbeddingModel", "embedding_udf"]

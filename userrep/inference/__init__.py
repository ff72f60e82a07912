"""The encoder for jobs (Arrow batches), notebooks (a pandas UDF) and services (plain Python)."""

from userrep.inference.model import EmbeddingModel, embedding_udf

__all__ = ["EmbeddingModel", "embedding_udf"]

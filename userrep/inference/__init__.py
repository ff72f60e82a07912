"""One encoder, offered three ways: to jobs in Arrow batches, to notebooks as a pandas UDF, to services in Python."""

from userrep.inference.model import EmbeddingModel
from userrep.inference.udf import embedding_udf

__all__ = ["EmbeddingModel", "embedding_udf"]

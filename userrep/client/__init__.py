"""The Python API for consumers of embeddings: ``userrep.open``."""

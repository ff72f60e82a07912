"""Near real time: from events as they arrive to vectors in ``embedding_updates`` and in the online store."""

from userrep.streaming.serving import Embedding, lookup

__all__ = ["Embedding", "lookup"]

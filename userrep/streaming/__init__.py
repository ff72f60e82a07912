"""Near-real-time embeddings, from arriving events to ``embedding_updates`` and the online store."""

from userrep.streaming.user_lookup import Embedding, lookup

__all__ = ["Embedding", "lookup"]

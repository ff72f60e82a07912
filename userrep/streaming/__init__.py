"""Near-real-time embeddings, from arriving events to ``embedding_updates`` and the online store."""

from userrep.streaming.redis_store import Embedding
from userrep.streaming.user_lookup import lookup

__all__ = ["Embedding", "lookup"]

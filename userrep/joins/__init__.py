"""Point-in-time joins of labels and embeddings."""

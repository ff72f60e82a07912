"""Example of a consumer that trains on embeddings."""

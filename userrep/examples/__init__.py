"""An example of a consumer that trains on embeddings."""

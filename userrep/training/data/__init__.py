"""Reading of training rows: files, shards and batches."""

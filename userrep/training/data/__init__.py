"""Training rows as files, shards and batches."""

"""Window sums per user: pooling of item vectors, its tasks, and the update of sums from day to day."""

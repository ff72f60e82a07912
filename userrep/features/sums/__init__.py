"""Window sums: what tasks pool, how they are spread, and how sums move from day to day."""

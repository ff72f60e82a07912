"""Storage: Delta tables, either as files or through Spark, with the same methods, and files next to them."""

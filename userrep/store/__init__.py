"""Tables: as files next to Spark, or through Spark alone, with the same methods."""

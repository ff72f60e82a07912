"""The Spark session, and measurement of the work that Spark does for a stage."""

"""The Spark session, and what its tasks have cost."""

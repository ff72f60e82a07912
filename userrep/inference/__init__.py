"""The encoder for jobs (Arrow batches), notebooks (a pandas UDF) and services (plain Python)."""

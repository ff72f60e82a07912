"""Drift of snapshots and of their inputs."""

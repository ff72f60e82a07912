"""Workflows: the work of each command and job, from start to end."""

"""A generated log with planted tastes."""

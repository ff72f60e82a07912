"""Generated event logs with planted user tastes."""

"""Activity tiles: one row per day, user, item and event type, made from the log."""

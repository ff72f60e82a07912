"""Activity tiles: one row per UTC day, user, item and event type, built from the event log."""

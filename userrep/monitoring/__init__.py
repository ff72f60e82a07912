"""How far snapshots and inputs have moved."""

"""Reading what owners have: logs, users and picks, with their columns."""

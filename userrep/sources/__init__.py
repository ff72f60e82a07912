"""Reading of the owner's data: event logs, users and picks, with their columns."""

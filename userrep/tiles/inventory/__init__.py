"""The inventory of the event log: its files and days, and which of them have changed."""

"""Users that are forgotten: requests, and rows taken out of tables."""

"""The log's inventory: which files and days it has, and which have changed."""

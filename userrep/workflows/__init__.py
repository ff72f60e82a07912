"""Applications: what a command or a job runs from its beginning to its end."""

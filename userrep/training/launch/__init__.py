"""Where ranks run, and how they talk to each other."""

"""One page about a root: what ran, on which data, how it moved, what it is worth, what it costs."""

"""Generators of the reference, one module per page."""

"""Paths as Spark's readers take them."""

import re


def not_a_pattern(path: str) -> str:
    """Return the path of one file so that Spark does not read it as a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)

"""Markdown for the reference pages: their folder, tables, and paragraphs from docstrings."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "docs" / "reference"
MADE = "<!-- Made from the code by `make reference`: change it there. -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as a Markdown table."""
    cells = [[re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


def paragraphs(docstring: str | None) -> list[str]:
    """Return a docstring's paragraphs, each on one line. Indented code is unchanged."""
    blocks = linked(inspect.cleandoc(docstring or "").replace("``", "`")).split("\n\n")
    lines: list[str] = []
    for block in blocks:
        lines += ["", block if block.startswith("    ") else " ".join(block.split())]
    return lines[1:]


def linked(text: str) -> str:
    """Turn the names of documentation pages in a text into links."""
    return re.sub(r"docs/([\w/-]+\.md)", r"[docs/\1](../\1)", text)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

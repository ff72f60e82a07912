"""Where a report is written: a page and its figures as JSON beside it, in the place of an earlier report alone."""

import json
import os
from pathlib import Path
from typing import Any

from userrep.errors import UsageError
from userrep.report.facts import Facts, as_tree
from userrep.report.page import MARK, page
from userrep.report.summary import Summary
from userrep.store.storage import write_bytes

GENERATOR = {"generator": "userrep report"}  # begins the JSON
_HEAD = 4096  # bytes that tell a report


def check_out(out: Path) -> None:
    """Refuse a place that a report cannot be written to. Nothing is made or changed.

    Raises
    ------
    UsageError
        If the name does not end in .html, its folder is not there or may not be written to, or something else than a
        report lies there or beside it.
    """
    if out.suffix != ".html":
        raise UsageError(f"--out {out}: name a file that ends in .html; figures as JSON go beside it.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--out {out}: there is no folder {folder}; make it, or name a file in another one.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {out}: this user may not write to {folder}; name a file in another one.")
    for path, mark in ((out, MARK), (twin_of(out), json.dumps(GENERATOR)[1:-1])):
        if path.is_dir() or (path.exists() and not _begins_with(path, mark)):
            raise UsageError(f"--out {out}: {path} is there and is no report; name another file.")


def write_report(out: Path, facts: Facts, summary: Summary) -> dict[str, Any]:
    """Write the page and its figures, each whole or not at all; return the figures."""
    figures: dict[str, Any] = GENERATOR | {"summary": as_tree(summary)} | as_tree(facts)
    write_bytes(str(twin_of(out)), json.dumps(figures, indent=1, allow_nan=False).encode())
    write_bytes(str(out), page(facts, summary).encode())
    return figures


def twin_of(out: Path) -> Path:
    """Return where the figures of a report lie."""
    return out.with_suffix(".json")


def _begins_with(path: Path, mark: str) -> bool:
    with open(path, "rb") as file:
        return mark.encode() in file.read(_HEAD)

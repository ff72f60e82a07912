"""Writes a report as an HTML page, with its figures as JSON next to it. Overwrites only earlier reports."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from userrep.errors import UsageError
from userrep.report import drawings, space_drawings
from userrep.report.facts import Facts
from userrep.report.findings import shell_command
from userrep.report.summary import Summary
from userrep.report.templates import mark_code, templates
from userrep.store.filesystem import write_bytes

MARK = '<meta name="generator" content="userrep report">'  # in page.html; a file with it may be overwritten
GENERATOR = {"generator": "userrep report"}  # first key of the JSON file, by which it is recognized
_HEAD = 4096  # bytes at the start of a file that are searched for the mark of a report


def check_report_path(out: Path) -> None:
    """Check that a report can be written to ``out``. Creates and changes nothing.

    Raises
    ------
    UsageError
        If the name does not end in .html, if its folder does not exist or is not writable, or if ``out`` or the JSON
        file next to it exists and is not a report.
    """
    if out.suffix != ".html":
        raise UsageError(f"--out {out}: the name does not end in .html. The figures go next to the page as JSON.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--out {out}: folder {folder} does not exist. Create it, or choose another folder.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {out}: no permission to write to {folder}. Choose another folder.")
    for path, mark in ((out, MARK), (twin_of(out), json.dumps(GENERATOR)[1:-1])):
        if path.is_dir() or (path.exists() and not _begins_with(path, mark)):
            raise UsageError(f"--out {out}: {path} exists and is not a report. Choose another name.")


def write_report(out: Path, facts: Facts, summary: Summary) -> dict[str, Any]:
    """Write the page and its figures; return the figures. Each file is written completely or not at all."""
    content = {**GENERATOR, "summary": summary, **vars(facts)}
    figures: dict[str, Any] = to_jsonable_python(content, inf_nan_mode="null", timedelta_mode="float")
    write_bytes(str(twin_of(out)), json.dumps(figures, indent=1, allow_nan=False).encode())
    write_bytes(str(out), page(facts, summary).encode())
    return figures


def page(facts: Facts, summary: Summary) -> str:
    """Render the page, without scripts or requests. The result depends only on the arguments."""
    return templates().get_template("page.html").render(
        facts=facts, summary=summary, draw=drawings, draw_space=space_drawings,
        command=lambda words, more="": mark_code(shell_command(facts, words, more)),
    )  # fmt: skip


def twin_of(out: Path) -> Path:
    """Return the path of the JSON file next to a page."""
    return out.with_suffix(".json")


def _begins_with(path: Path, mark: str) -> bool:
    with open(path, "rb") as file:
        return mark.encode() in file.read(_HEAD)

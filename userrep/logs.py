"""Progress lines on stderr: text, or with USERREP_LOG=json one JSON object per line, with the id of the run."""

import json
import os
import sys
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from userrep.errors import UsageError
from userrep.ids import checked_name

FORMAT, RUN_ID = "USERREP_LOG", "USERREP_RUN_ID"  # environment variables

_run: dict[str, str] = {}  # run_id and stage that this process is working on


class StageLine(str):
    """The progress line for the end of a stage, with figures that only the JSON format shows."""

    __slots__ = ("figures",)

    def __new__(cls, line: str, figures: Mapping[str, Any]) -> "StageLine":
        stage_line = super().__new__(cls, line)
        stage_line.figures = figures
        return stage_line

    figures: Mapping[str, Any]


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that led here: the first frame outside of userrep and pyspark."""
    depth = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("userrep", "pyspark"):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


def as_json() -> bool:
    """Return whether lines are JSON objects."""
    return os.environ.get(FORMAT) == "json"


def to_stderr(line: str) -> None:
    """Print a progress line."""
    if as_json():
        _print_object("info", line)
    else:
        print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def errors_to_stderr(lines: Iterable[str]) -> None:
    """Print the reasons why a command ends with an error."""
    for line in lines:
        if as_json():
            _print_object("error", line)
        else:
            print(f"userrep: {line}", file=sys.stderr, flush=True)


def begin_run(run_id: str | None = None) -> None:
    """Set the run id of all stages and lines of this process until ``end_run``.

    The id is ``run_id``, else that of USERREP_RUN_ID, else a new one.

    Raises
    ------
    UsageError
        If the id is not a valid name, or USERREP_LOG is not a known format.
    """
    if os.environ.get(FORMAT, "text") not in ("json", "text"):
        raise UsageError(f"{FORMAT} is {os.environ[FORMAT][:80]!r}; use json or text.")
    _run["run_id"] = _resolve_run_id(run_id)


def end_run() -> None:
    """Clear the run id that ``begin_run`` has set."""
    _run.clear()


def this_run_id() -> str:
    """Return the run id of the process. Before ``begin_run``, return USERREP_RUN_ID, or a new id at each call."""
    return _run.get("run_id") or _resolve_run_id(None)


def _resolve_run_id(run_id: str | None) -> str:
    given = run_id or os.environ.get(RUN_ID)
    return checked_name(given, "run id") if given else f"r{datetime.now(UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:6]}"


@contextmanager
def in_stage(run_id: str, stage: str) -> Iterator[None]:
    """Add run id and stage to the JSON lines printed within the block, by any thread."""
    before = dict(_run)
    _run.update(run_id=run_id, stage=stage)
    try:
        yield
    finally:
        _run.clear()
        _run.update(before)


def _print_object(level: str, line: str) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {"time": time, "level": level, "run_id": _run.get("run_id"), "stage": _run.get("stage"), "message": line}
    figures = line.figures if isinstance(line, StageLine) else {}
    print(json.dumps(fields | dict(figures), default=str), file=sys.stderr, flush=True)


def in_columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a text table: a header line and one line per row, with columns of numbers aligned to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    is_number = [
        all(cell.replace(",", "").replace(".", "").isdigit() for cell in column) for column in zip(*rows, strict=True)
    ]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, is_number, strict=True)]
        return "  ".join(padded).rstrip()

    return [line(head), *(line(row) for row in rows)]

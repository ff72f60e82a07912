"""What a run says on stderr: lines for people, or with USERREP_LOG=json one JSON object a line, under the run's id."""

import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from userrep.errors import UsageError
from userrep.ids import checked_name

FORMAT, RUN_ID = "USERREP_LOG", "USERREP_RUN_ID"  # variables of the environment

_now: dict[str, str] = {}  # run_id and stage of what is under way in this process


class StageLine(str):
    """The line that tells of a stage's end, with the figures that JSON gives beside it."""

    __slots__ = ("figures",)

    def __new__(cls, line: str, figures: Mapping[str, Any]) -> "StageLine":
        made = super().__new__(cls, line)
        made.figures = figures
        return made

    figures: Mapping[str, Any]


def as_json() -> bool:
    """Say whether lines are JSON objects."""
    return os.environ.get(FORMAT) == "json"


def to_stderr(line: str) -> None:
    """Print a progress line."""
    if as_json():
        _print_object("info", line)
    else:
        print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def say_why(lines: Iterable[str], *, who: str) -> None:
    """Print why a program ends as it does; ``who``: its name, which begins the lines for people."""
    for line in lines:
        if as_json():
            _print_object("error", line)
        else:
            print(f"{who}: {line}", file=sys.stderr, flush=True)


def begin_run(run_id: str | None = None) -> None:
    """Give all stages and lines of this process one run id, until ``end_run``: this one, USERREP_RUN_ID, or a new one.

    Raises
    ------
    UsageError
        If the id is not a valid name, or USERREP_LOG names no format.
    """
    if os.environ.get(FORMAT, "text") not in ("json", "text"):
        raise UsageError(f"{FORMAT} is {os.environ[FORMAT][:80]!r}; use json or text.")
    _now["run_id"] = _chosen(run_id)


def end_run() -> None:
    """Forget the process's run."""
    _now.clear()


def this_run_id() -> str:
    """Return the id of the process's run; where none has begun, USERREP_RUN_ID, or a new one at each call."""
    return _now.get("run_id") or _chosen(None)


def _chosen(run_id: str | None) -> str:
    given = run_id or os.environ.get(RUN_ID)
    return checked_name(given, "run id") if given else f"r{datetime.now(UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:6]}"


@contextmanager
def in_stage(run_id: str, stage: str) -> Iterator[None]:
    """Let lines within the block name the stage and its run, whichever thread prints them."""
    before = dict(_now)
    _now.update(run_id=run_id, stage=stage)
    try:
        yield
    finally:
        _now.clear()
        _now.update(before)


def _print_object(level: str, line: str) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found = {"time": time, "level": level, "run_id": _now.get("run_id"), "stage": _now.get("stage"), "message": line}
    figures = line.figures if isinstance(line, StageLine) else {}
    print(json.dumps(found | dict(figures), default=str), file=sys.stderr, flush=True)


def in_columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lay rows out in columns; numbers to the right, the last column as it is."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    is_number = [
        all(cell.replace(",", "").replace(".", "").isdigit() for cell in column) for column in zip(*rows, strict=True)
    ]

    def line(cells: list[str]) -> str:
        laid = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, is_number, strict=True)]
        return "  ".join(laid).rstrip()

    return [line(head), *(line(row) for row in rows)]

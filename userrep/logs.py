"""Log lines on stderr: text, or with USERREP_LOG=json one JSON object per line, with the id of the run.

Modules log with ``logging.getLogger(__name__)``. Commands and jobs print these lines. Other programs call
``log_to_stderr``, or add a handler to the logger ``userrep`` and set its level to INFO.
"""

import json
import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TextIO

from userrep.errors import UsageError
from userrep.ids import checked_name

FORMAT, RUN_ID = "USERREP_LOG", "USERREP_RUN_ID"  # environment variables

_logger = logging.getLogger("userrep")
# run_id, stage and prefix of this process's lines. Not context variables, because new threads do not inherit those.
_run: dict[str, str] = {}


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Prints to the stderr at its creation. ``of_run``: added by ``begin_run`` and removed by ``end_run``."""

    def __init__(self, *, of_run: bool) -> None:
        super().__init__()
        self.of_run, self.level_before = of_run, _logger.level
        self.setFormatter(_JsonFormatter() if lines_are_json() else _TextFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line, so that a closed terminal does not stop the run."""


class _TextFormatter(logging.Formatter):
    """Formats a record as the time (UTC) and the message, an error as the program's name and the message."""

    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.ERROR:
            return f"userrep: {text_of(record)}"
        level = "warning: " if record.levelno == logging.WARNING else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{text_of(record)}"


class _JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, run, message, and the ``figures`` of a stage's end."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"time": at, "level": record.levelname.lower(), "run_id": _run.get("run_id")}
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        fields |= {"stage": _run.get("stage"), "message": text_of(record) + trace}
        figures: dict[str, Any] = getattr(record, "figures", {})
        return json.dumps(fields | figures, default=str)


def text_of(record: logging.LogRecord) -> str:
    """Return the message of a log record, with its prefix."""
    return _run.get("prefix", "") + record.getMessage()


def log_to_stderr() -> None:
    """Print the log lines of userrep on stderr, and no longer pass them to the root logger."""
    _print_lines(of_run=False)


def stop_log_to_stderr() -> None:
    """Undo ``log_to_stderr``."""
    for handler in _stderr_handlers():
        _logger.removeHandler(handler)
        _logger.setLevel(handler.level_before)
        _logger.propagate = True


def _print_lines(*, of_run: bool) -> None:
    stop_log_to_stderr()
    _logger.addHandler(_StderrHandler(of_run=of_run))
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


def _stderr_handlers() -> list[_StderrHandler]:
    return [handler for handler in _logger.handlers if isinstance(handler, _StderrHandler)]


def lines_are_json() -> bool:
    """Return whether lines are JSON objects."""
    return os.environ.get(FORMAT) == "json"


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that led here: the first frame outside of userrep and pyspark."""
    depth = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("userrep", "pyspark"):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


def begin_run(run_id: str | None = None) -> None:
    """Print log lines on stderr, and set the run id of all stages and lines of this process, until ``end_run``.

    The id is ``run_id``, else that of USERREP_RUN_ID, else a new one.

    Raises
    ------
    UsageError
        If the id is not a valid name, or USERREP_LOG is not a known format.
    """
    if not _stderr_handlers():
        _print_lines(of_run=True)
    if os.environ.get(FORMAT, "text") not in ("json", "text"):
        raise UsageError(f"{FORMAT} is {os.environ[FORMAT][:80]!r}; use json or text.")
    _run["run_id"] = _resolve_run_id(run_id)


def end_run() -> None:
    """Undo ``begin_run``."""
    _run.clear()
    if any(handler.of_run for handler in _stderr_handlers()):
        stop_log_to_stderr()


def this_run_id() -> str:
    """Return the run id of the process. Before ``begin_run``, return USERREP_RUN_ID, or a new id at each call."""
    return _run.get("run_id") or _resolve_run_id(None)


def _resolve_run_id(run_id: str | None) -> str:
    given = run_id or os.environ.get(RUN_ID)
    return checked_name(given, "run id") if given else f"r{datetime.now(UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:6]}"


@contextmanager
def logged_with(**facts: str) -> Iterator[None]:
    """Set facts of the lines logged within the block, by any thread.

    ``run_id`` and ``stage`` are fields of JSON lines. All messages begin with ``prefix``.
    """
    before = dict(_run)
    _run.update(facts)
    try:
        yield
    finally:
        _run.clear()
        _run.update(before)


def in_columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a text table: a header line and one line per row, with columns of numbers aligned to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(cell.replace(",", "").replace(".", "").isdigit() for cell in cells) for _, *cells in columns]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, is_number, strict=True)]
        return "  ".join(padded).rstrip()

    return [line(head), *(line(row) for row in rows)]

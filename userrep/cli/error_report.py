"""How a command's error is reported: lines on stderr, with --json also an object on stdout, and the exit code.

All printed lines name commands with the configuration of the running one, so that they can be run as printed.
"""

import argparse
import json
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterable

import typer

from userrep.errors import explain

logger = logging.getLogger(__name__)


def report_error(error: Exception, *, as_json: bool = False) -> int:
    """Print an error, after its traceback with --debug; return the exit code.

    The argument parser's exceptions have messages of their own.
    """
    if not hasattr(error, "format_message"):  # raised by Typer
        code, lines = explain(error)
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        return report_faults(code, lines, as_json=as_json)
    message = error.format_message().replace("Value error, ", "")
    if message.startswith("Usage:"):  # no command was given
        print(message, file=sys.stderr)
        return 2
    end = "" if message.endswith((".", "?")) else "."
    return report_faults(2, [f"{message}{end} Try `--help`."], as_json=as_json)


def report_faults(code: int, lines: Iterable[str], *, as_json: bool) -> int:
    """Log faults, and with ``as_json`` print them as one object on stdout; return the exit code."""
    faults = with_config(lines)
    for fault in faults:
        logger.error(fault)
    if as_json:
        typer.echo(json.dumps({"exit_code": code, "faults": faults}))
    return code


def log_with_config() -> None:
    """Apply ``with_config`` to the log lines of this run."""
    for handler in logging.getLogger("userrep").handlers:
        handler.addFilter(_record_with_config)


def _record_with_config(record: logging.LogRecord) -> bool:
    (record.msg,), record.args = with_config([record.getMessage()]), None
    return True


def with_config(lines: Iterable[str]) -> list[str]:
    """Add this command's --config and --set to the commands that messages name, so that they can be run as printed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", nargs="?")
    parser.add_argument("--set", nargs="?", action="append", default=[])
    given = parser.parse_known_args(sys.argv[1:])[0]
    if given.config is None:
        return list(lines)
    own = r"(?! (?:init|demo)\b)(?![^`]* (?:-c|--config|--open|--help)\b)"  # commands that are left as they are
    options = f" --config {shlex.quote(given.config)}"
    options += "".join(f" --set {shlex.quote(override)}" for override in given.set if override)
    return [re.sub(rf"(?<=`)userrep{own} [^`]*(?=`)", lambda command: command[0] + options, line) for line in lines]

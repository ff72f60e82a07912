"""The message and exit code of a command that failed."""

import sys
import traceback

from userrep.cli.options import print_faults
from userrep.errors import explain


def report_error(error: Exception) -> int:
    """Print an error, after its traceback with --debug; return the exit code.

    The argument parser's exceptions have messages of their own.
    """
    if hasattr(error, "format_message"):  # raised by Typer
        message = error.format_message()
        if message.startswith("Usage:"):  # no command was given
            print(message, file=sys.stderr)
        else:
            end = "" if message.endswith((".", "?")) else "."
            print_faults([f"{message}{end} Try `--help`."])
        return 2
    code, lines = explain(error)
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    print_faults(lines)
    return code

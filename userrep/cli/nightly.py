"""``userrep nightly``: the daily run, waiting erasure requests and due maintenance as one command."""

from dataclasses import asdict

import typer

from userrep.cli.failures import report_error
from userrep.cli.options import (
    AsJson,
    AsOf,
    ConfigFile,
    Debug,
    Overrides,
    as_date,
    print_result,
    session_for_run,
    tables_of,
)
from userrep.config import load_config


def nightly(
    config_file: ConfigFile,
    as_of: AsOf = "today",
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run `daily`, waiting erasures and maintenance.

    Maintenance runs if the last one was a week ago. Each part runs even if an earlier one failed or was refused.
    Prints one line per part. The exit code is the lowest nonzero code of the parts: 1 failed, 2 wrong use or
    configuration, 3 a gate refused, 4 the log is not complete yet. Run the same command again to repeat the parts that
    did not succeed; parts that are done are skipped.
    """
    day, config = as_date(as_of), load_config(config_file, overrides or [])
    tables = tables_of(config, writes=True)
    from userrep.logs import this_run_id, to_stderr
    from userrep.workflows.nightly import DailyParts, exit_code

    parts = []
    for part in DailyParts(tables, config, day, lambda: session_for_run(config, day), to_stderr, report_error).run():
        parts.append(part)
        if not as_json:
            typer.echo(f"{part.part:<12} {part.outcome:<9} {part.seconds:6.1f} s  {part.reason}")
    code = exit_code(parts)
    result = {"run_id": this_run_id(), "as_of": day, "exit_code": code, "parts": [asdict(part) for part in parts]}
    print_result(result, [], as_json=as_json)
    if code:
        raise typer.Exit(code)

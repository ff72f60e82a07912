"""``userrep nightly``: the daily run, waiting erasure requests, due maintenance and retraining as one command."""

import typer

from userrep.cli.error_report import report_error
from userrep.cli.options import AsJson, AsOf, Output, command, context_for_run, tables_of
from userrep.config import Config


@command
def nightly(config: Config, as_of: AsOf = "today", as_json: AsJson = False) -> Output:  # type: ignore[assignment]
    """Run `daily`, erasures, maintenance and retraining.

    Maintenance runs if the last one was a week ago. With a section `retraining`, a candidate is trained when it is due,
    and compared with the serving space for the consumers that have recorded a verdict before. Each part runs even if an
    earlier one failed or was refused. Prints one line per part. The exit code is the lowest nonzero code of the parts:
    1 failed, 2 wrong use or configuration, 3 a gate refused, 4 the log is not complete yet. Run the same command again
    to repeat the parts that did not succeed; parts that are done are skipped.
    """
    tables = tables_of(config, writes=True)
    from userrep.logs import this_run_id
    from userrep.workflows.nightly import DailyParts, exit_code

    parts = []
    work = DailyParts(tables, config, as_of, lambda: context_for_run(config, as_of), report_error)
    for part in work.run():
        parts.append(part)
        if not as_json:
            typer.echo(f"{part.part:<12} {part.outcome:<9} {part.seconds:6.1f} s  {part.reason}")
    code = exit_code(parts)
    result = {"run_id": this_run_id(), "as_of": as_of, "exit_code": code, "parts": parts}
    return Output(result, exit_code=code)

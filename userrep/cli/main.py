"""The ``userrep`` command: its subcommands, and how errors become messages and exit codes.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 3 refused by a
gate.
"""

import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from userrep.cli import consumers as cli_consumers
from userrep.cli import evaluate as cli_evaluate
from userrep.cli import forget as cli_forget
from userrep.cli import plan as cli_plan
from userrep.cli import report as cli_report
from userrep.cli import spaces as cli_spaces
from userrep.cli import stream as cli_stream
from userrep.cli.options import (
    AsJson,
    AsOf,
    ConfigFile,
    Debug,
    InSpace,
    Overrides,
    as_date,
    print_faults,
    print_result,
    session_for_run,
    session_of,
    tables_of,
)
from userrep.config import Config, load_config
from userrep.errors import UsageError, UserrepError, cause_outside, in_one_line
from userrep.logs import begin_run, end_run, in_columns

app = typer.Typer(
    help="Turn event logs into one user embedding for many downstream models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_spaces.app, name="spaces")
app.add_typer(cli_consumers.app, name="consumers")
app.add_typer(cli_stream.app, name="stream")

_INTERRUPTED = 130  # Typer's exit code for Ctrl-C


def main() -> None:
    """Run the command line. On an error, print it on stderr and exit with its code; on success, return.

    It does not exit on success, since schedulers that call this as a function may treat any SystemExit as a failure.
    """
    try:
        code = _exit_code()
    finally:
        end_run()
    if code:
        sys.exit(code)


@app.callback()
def common(
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="Run id. Default: USERREP_RUN_ID, or a new one.")
    ] = None,
) -> None:
    """Handle the options before the command."""
    if run_id is not None:
        begin_run(run_id)


@app.command()
def demo(overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Run all batch stages on a generated log.

    Trains a space with 2 Horovod ranks, publishes snapshots and trains a downstream model on them.
    """
    from userrep.logs import to_stderr
    from userrep.workflows.demo import AS_OF, SPEC, demo_config, ensure_log

    config = demo_config(overrides or [])
    ensure_log(session_of(config), config, SPEC, to_stderr)
    _run_pipeline(config, AS_OF, retrain=False, as_json=as_json)
    if not as_json:
        option = "--config conf/demo.yaml"
        typer.echo(
            f"\nTry next:\n  userrep status {option}\n"
            f"  userrep export embeddings {option} --as-of {AS_OF} --out build/embeddings\n"
            f"  userrep pipeline {option} --as-of {AS_OF} --retrain\n  userrep spaces list {option}"
        )


@app.command()
def pipeline(
    config_file: ConfigFile,
    as_of: AsOf,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train a new space even if one exists.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run all batch stages for an as-of date.

    Stages that are up to date are skipped. Trains a space if there is none, or with --retrain. Promotes it only if no
    space is serving.
    """
    day = as_date(as_of)
    _run_pipeline(load_config(config_file, overrides or []), day, retrain=retrain, as_json=as_json)


@app.command()
def daily(
    config_file: ConfigFile,
    as_of: AsOf,
    as_if_on_time: Annotated[
        bool,
        typer.Option("--as-if-on-time", help="Stamp snapshots as if the run had been on time, to replay the past."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Refresh, embed, gate and publish; no training.

    Publishes a snapshot of the as-of date for every space in use: the serving space, spaces that wait to serve, spaces
    that consumers are pinned to, and those needed for a rollback.

    Window sums are updated by the days that enter and leave the windows and by days that changed in the log. Published
    dates that late data has made stale are reported. Run `userrep backfill --stale` to rebuild them.
    """
    day = as_date(as_of)
    config = load_config(config_file, overrides or [])
    spark = session_for_run(config, day)
    from userrep.workflows import daily as workflow  # imports torch, which the checks before Spark do not need
    from userrep.workflows.pipeline import Pipeline

    work = Pipeline(config, spark, day)
    spaces = workflow.daily(work, on_time=as_if_on_time)
    serving = next((space.space_id for space in spaces if space.state == "serving"), None)
    _print_stages(work, as_json=as_json, serving=serving)


@app.command()
def backfill(
    config_file: ConfigFile,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First as-of date.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last as-of date, inclusive.")] = None,
    every: Annotated[int, typer.Option("--every", metavar="DAYS", help="Days between as-of dates.")] = 1,
    stale: Annotated[
        bool, typer.Option("--stale", help="Instead of a range, rebuild published dates that late data made stale.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build and publish snapshots of past dates.

    Snapshots are stamped as if they had been published on time. Dates that are up to date are skipped. Groups of dates
    share one pass over the tiles. If interrupted, run the same command again to continue.
    """
    if stale == bool(first and last) or bool(first) != bool(last):
        raise UsageError("backfill: needs either both --from and --to, or --stale.")
    ends = [as_date(text, "--from/--to") for text in (first, last) if text]
    config = load_config(config_file, overrides or [])
    from userrep.workflows import daily as workflow
    from userrep.workflows.pipeline import Pipeline

    dates = workflow.dates_between(ends[0], ends[1], every) if ends else []
    work = Pipeline(config, session_for_run(config, *dates), dates[-1] if dates else None)
    workflow.backfill(work, dates) if dates else workflow.backfill_stale(work)
    _print_stages(work, as_json=as_json)


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="Name of a job in jobs/, for example build_activity_tiles.")],
    config_file: ConfigFile,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="YYYY-MM-DD", help="As-of date. Default: the day after the last log day."),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Also prepare training of a new space.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run one job of jobs/ by name."""
    day = as_date(as_of) if as_of else None
    config = load_config(config_file, overrides or [])
    from userrep.workflows.jobs import FOR_RETRAINING, JOBS, run_job
    from userrep.workflows.pipeline import Pipeline

    if job not in JOBS:
        raise UsageError(f"run {job}: unknown job. Choose one of: {', '.join(JOBS)}.")
    if retrain and job not in FOR_RETRAINING:
        raise UsageError(f"run {job}: --retrain applies only to {', '.join(FOR_RETRAINING)}. Remove it.")
    work = Pipeline(config, session_for_run(config, day), day)
    run_job(work, job, retrain=retrain)
    _print_stages(work, as_json=as_json)


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="embeddings, features or item-vectors.")],
    config_file: ConfigFile,
    as_of: AsOf,
    out: Annotated[str, typer.Option("--out", help="Folder for the Parquet files and _manifest.json.")],
    space: InSpace = None,
    unrecorded: Annotated[
        bool,
        typer.Option("--unrecorded", help="Do not record the export, for a read-only root; `forget` skips the folder."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Export embeddings, features or item vectors.

    Writes the newest revision of a date as Parquet. Builds nothing: if the date is missing, the error names the
    command that builds it. The folder is recorded first, so that `userrep forget` can erase users in it.
    """
    day = as_date(as_of)
    from userrep.workflows.export import EXPORTS, check_out

    if what not in EXPORTS:
        raise UsageError(f"export {what}: unknown. Choose one of: {', '.join(EXPORTS)}.")
    check_out(out)
    config = load_config(config_file, overrides or [])
    manifest = _export(what, config, day, out, space, recorded=not unrecorded)
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    print_result(manifest, [f"{what} of {day}: {manifest['num_rows']:,} rows in {out}"], as_json=as_json)


app.command()(cli_evaluate.evaluate)
app.command()(cli_plan.plan)
app.command()(cli_forget.forget)
app.command()(cli_report.report)


@app.command()
def status(config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show tiles, spaces, snapshots and recent runs.

    Also shows rejected rows, storage, consumers and open erasure requests.
    """
    config = load_config(config_file, overrides or [])
    from userrep.workflows import status as workflow

    state = workflow.status(tables_of(config), config)
    print_result(state, workflow.status_lines(state), as_json=as_json)


@app.command()
def doctor(
    config_file: Annotated[Path | None, typer.Option("--config", help="Also check the root of this file.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check that this machine can run userrep.

    Checks Python, Java, matching versions of Spark and Delta, Horovod, the root, and a Spark session with Delta.
    """
    config = load_config(config_file, overrides or []) if config_file else None
    from userrep.cli.doctor import findings

    checks = []
    for finding in findings(config):
        checks.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        print_result({"checks": [asdict(finding) for finding in checks]}, [], as_json=True)
    if not all(finding.ok for finding in checks):
        raise typer.Exit(1)


def _exit_code() -> int:
    try:
        begin_run()
        code = app(standalone_mode=False)
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        code = _INTERRUPTED
    except Exception as error:
        code = _report_error(error)
    if code == _INTERRUPTED:
        print_faults(["interrupted. Committed work is kept. Run the same command again to continue."])
        code = 1
    return code if isinstance(code, int) else 0


def _run_pipeline(config: Config, as_of: date, *, retrain: bool, as_json: bool) -> None:
    spark = session_for_run(config, as_of)
    from userrep.workflows.pipeline import Pipeline  # imports torch, which the checks before Spark do not need

    work = Pipeline(config, spark, as_of)
    serving = work.run(retrain=retrain)
    _print_stages(work, as_json=as_json, serving=serving.space_id)


def _export(what: str, config: Config, day: date, out: str, space_id: str | None, *, recorded: bool) -> dict[str, Any]:
    """Export from the lineage of the space, or of the configuration if there is no space yet."""
    from userrep.items.versions import lineage_of
    from userrep.spaces.registry import find_space, read_registry
    from userrep.workflows.export import EXPORTS

    tables = tables_of(config)
    if what == "embeddings":
        return EXPORTS[what](tables, config, find_space(tables, space_id), day, out, recorded=recorded)
    lineage_id = lineage_of(config)
    if space_id or read_registry(tables).serving:
        space = find_space(tables, space_id)
        if space.lineage_id != lineage_id:
            raise UsageError(
                f"space {space.space_id} has lineage {space.lineage_id}, but this configuration has {lineage_id}: "
                "its columns, windows or item vectors differ. Use the configuration the space was trained with."
            )
    if what == "item-vectors":
        return EXPORTS[what](tables, config, lineage_id, day, out)
    return EXPORTS[what](tables, config, lineage_id, day, out, recorded=recorded)


def _print_stages(work: Any, *, as_json: bool, serving: str | None = None) -> None:
    rows = [[s.stage, s.outcome, f"{s.num_rows:,}", f"{s.seconds:.1f}", s.reason] for s in work.runs.stages]
    lines = in_columns(["stage", "outcome", "rows", "seconds", "reason"], rows)
    if work.self_check:
        lines += ["", *work.self_check.lines]
    if work.outcomes:
        lines += ["", "return propensity, test AUC on the same rows and snapshots:"]
        lines += [f"  {o.input:<16} {o.dims:>4} dims   {o.auc:.4f}" for o in work.outcomes]
    if serving:
        lines += ["", f"serving space: {serving}"]
    result = {
        "run_id": work.runs.run_id,
        "as_of": work.schedule.as_of,
        "serving": serving,
        "stages": [asdict(stage) for stage in work.runs.stages],
        "self_check": work.self_check and work.self_check.model_dump(mode="json"),
        "auc": {outcome.input: outcome.auc for outcome in work.outcomes},
    }
    print_result(result, lines, as_json=as_json)


def _print_error(error: Exception, lines: Iterable[str]) -> None:
    """Print the lines that describe an error, after its traceback with --debug."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    print_faults(lines)


def _report_error(error: Exception) -> int:
    """Print an error; return its exit code."""
    if cause := cause_outside(error):
        _print_error(error, [cause])
        return 1
    if isinstance(error, UserrepError):
        _print_error(error, error.faults if isinstance(error, UsageError) else str(error).splitlines())
        return error.exit_code
    return _report_unexpected(error)


def _report_unexpected(error: Exception) -> int:
    """Print an error of the argument parser, or an exception that userrep did not raise; return the exit code."""
    if hasattr(error, "format_message"):  # raised by Typer
        message = error.format_message()
        if message.startswith("Usage:"):  # no command was given
            print(message, file=sys.stderr)
        else:
            end = "" if message.endswith((".", "?")) else "."
            print_faults([f"{message}{end} Try `--help`."])
        return 2
    _print_error(error, [f"{in_one_line(error)}. Committed work is kept. Use --debug for a traceback."])
    return 1


if __name__ == "__main__":
    main()

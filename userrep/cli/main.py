"""The command line: progress on stderr, results on stdout; exits with 0 done, 1 failed, 2 wrong use, 3 refused."""

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
    print_result,
    say,
    session_for_run,
    session_of,
    tables_of,
)
from userrep.config import Config, load_config
from userrep.errors import UsageError, UserrepError, cause_outside, in_one_line
from userrep.logs import begin_run, end_run, in_columns

app = typer.Typer(
    help="One frozen user embedding for many downstream models: event logs in, published snapshots out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_spaces.app, name="spaces")
app.add_typer(cli_consumers.app, name="consumers")
app.add_typer(cli_stream.app, name="stream")

_INTERRUPTED = 130  # what Typer makes of Ctrl-C


def main() -> None:
    """Run the command line; a deliberate error is one line on stderr and an exit code. Returns where all is well.

    For schedulers that call this as a function: there a SystemExit may count as a failure, that of code 0 too.
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
        str | None, typer.Option("--run-id", metavar="ID", help="Of all stages. Default: USERREP_RUN_ID, or a new one.")
    ] = None,
) -> None:
    """Take the option that stands before the command."""
    if run_id is not None:
        begin_run(run_id)


@app.command()
def demo(overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Generate a log, run every stage on it with 2 Horovod ranks, train a consumer on the embeddings."""
    from userrep.logs import to_stderr
    from userrep.workflows.demo import AS_OF, SPEC, demo_config, ensure_log

    config = demo_config(overrides or [])
    ensure_log(session_of(config), config, SPEC, to_stderr)
    _run_pipeline(config, AS_OF, retrain=False, as_json=as_json)
    if not as_json:
        where = "--config conf/demo.yaml"
        typer.echo(
            f"\nTry next:\n  userrep status {where}\n"
            f"  userrep export embeddings {where} --as-of {AS_OF} --out build/embeddings\n"
            f"  userrep pipeline {where} --as-of {AS_OF} --retrain\n  userrep spaces list {where}"
        )


@app.command()
def pipeline(
    config_file: ConfigFile,
    as_of: AsOf,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train a new space, although one is there.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run every batch stage for an as-of date; what is up to date is skipped, and said.

    Trains a space where there is none yet or with --retrain, and promotes by itself only where nothing serves.
    """
    day = as_date(as_of)
    _run_pipeline(load_config(config_file, overrides or []), day, retrain=retrain, as_json=as_json)


@app.command()
def daily(
    config_file: ConfigFile,
    as_of: AsOf,
    as_if_on_time: Annotated[
        bool,
        typer.Option("--as-if-on-time", help="Stamp the snapshot as a run on time would have: to replay the past."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Refresh the features, embed, gate and publish for one date; no training.

    Every space in use gets its snapshot: the one that serves, those that consumers are pinned to or get ready on, and
    the one that served before.
    Window sums move on from the date before by the days that enter and leave their windows and by days that changed
    in the log. Published dates that late data has made stale are named; `userrep backfill --stale` rebuilds them.
    """
    day = as_date(as_of)
    config = load_config(config_file, overrides or [])
    spark = session_for_run(config, day)
    from userrep.workflows import daily as nightly  # torch, which the checks before Spark do without
    from userrep.workflows.pipeline import Pipeline

    work = Pipeline(config, spark, day)
    spaces = nightly.daily(work, on_time=as_if_on_time)
    serving = next((space.space_id for space in spaces if space.state == "serving"), None)
    _print_stages(work, as_json=as_json, serving=serving)


@app.command()
def backfill(
    config_file: ConfigFile,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The first as-of date.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The last as-of date.")] = None,
    every: Annotated[int, typer.Option("--every", metavar="DAYS", help="Days from one date to the next.")] = 1,
    stale: Annotated[
        bool, typer.Option("--stale", help="Instead of a range: the published dates that late data has made stale.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build and publish snapshots of many dates, as if on time; what is up to date is skipped.

    Dates share one pass over the tiles. Killed and run again, it goes on where it was.
    """
    if stale == bool(first and last) or bool(first) != bool(last):
        raise UsageError("backfill: give --from and --to, or --stale.")
    ends = [as_date(text, "--from/--to") for text in (first, last) if text]
    config = load_config(config_file, overrides or [])
    from userrep.workflows import daily as nightly
    from userrep.workflows.pipeline import Pipeline

    dates = nightly.dates_between(ends[0], ends[1], every) if ends else []
    work = Pipeline(config, session_for_run(config, *dates), dates[-1] if dates else None)
    nightly.backfill(work, dates) if dates else nightly.backfill_stale(work)
    _print_stages(work, as_json=as_json)


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="A job of jobs/, for example build_activity_tiles.")],
    config_file: ConfigFile,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="YYYY-MM-DD", help="Default: the day after the log's last."),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="For a new space, although one is there.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run one job of jobs/ by its name."""
    day = as_date(as_of) if as_of else None
    config = load_config(config_file, overrides or [])
    from userrep.workflows.jobs import FOR_RETRAINING, JOBS, run_job
    from userrep.workflows.pipeline import Pipeline

    if job not in JOBS:
        raise UsageError(f"run {job}: no such job; there are: {', '.join(JOBS)}.")
    if retrain and job not in FOR_RETRAINING:
        raise UsageError(f"run {job}: --retrain is for {', '.join(FOR_RETRAINING)}.")
    work = Pipeline(config, session_for_run(config, day), day)
    run_job(work, job, retrain=retrain)
    _print_stages(work, as_json=as_json)


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="embeddings, features or item-vectors.")],
    config_file: ConfigFile,
    as_of: AsOf,
    out: Annotated[str, typer.Option("--out", help="Folder to write Parquet files and _manifest.json to.")],
    space: InSpace = None,
    unrecorded: Annotated[
        bool,
        typer.Option("--unrecorded", help="Without a record, for a root that is read-only: `forget` skips the folder."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write embeddings, features or item vectors of a date as Parquet; the newest revision counts.

    Nothing is built: for a date that is not there yet, the command that builds it is named. The folder is recorded
    below the root first, so that `userrep forget` reaches the users in it.
    """
    day = as_date(as_of)
    from userrep.workflows.export import EXPORTS, check_out

    if what not in EXPORTS:
        raise UsageError(f"export {what}: not known; there are: {', '.join(EXPORTS)}.")
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
    """Show what there is: days of tiles, rejected rows, spaces with their snapshots, the last run of each stage."""
    config = load_config(config_file, overrides or [])
    from userrep.workflows import status as state

    found = state.status(tables_of(config), config)
    print_result(found, state.status_lines(found), as_json=as_json)


@app.command()
def doctor(
    config_file: Annotated[Path | None, typer.Option("--config", help="Also check this configuration's root.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check this machine: versions that belong together, Java, Horovod, the root folder, Spark with Delta."""
    config = load_config(config_file, overrides or []) if config_file else None
    from userrep.cli.doctor import findings

    found = []
    for finding in findings(config):
        found.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        print_result({"checks": [asdict(finding) for finding in found]}, [], as_json=True)
    if not all(finding.ok for finding in found):
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
        code = _failed(error)
    if code == _INTERRUPTED:
        say(["interrupted; what was committed stays, run the command again to go on."])
        code = 1
    return code if isinstance(code, int) else 0


def _run_pipeline(config: Config, as_of: date, *, retrain: bool, as_json: bool) -> None:
    spark = session_for_run(config, as_of)
    from userrep.workflows.pipeline import Pipeline  # torch, which the checks before Spark do without

    work = Pipeline(config, spark, as_of)
    serving = work.run(retrain=retrain)
    _print_stages(work, as_json=as_json, serving=serving.space_id)


def _export(what: str, config: Config, day: date, out: str, space_id: str | None, *, recorded: bool) -> dict[str, Any]:
    """Export from the space's lineage, or from the configuration's where there is no space yet."""
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
                f"space {space.space_id} was trained with other columns, windows or item vectors than {what} of this "
                f"configuration have ({space.lineage_id}, here {lineage_id}); use the configuration of then."
            )
    if what == "item-vectors":
        return EXPORTS[what](tables, config, lineage_id, day, out)
    return EXPORTS[what](tables, config, lineage_id, day, out, recorded=recorded)


def _print_stages(work: Any, *, as_json: bool, serving: str | None = None) -> None:
    rows = [[s.stage, s.outcome, f"{s.num_rows:,}", f"{s.seconds:.1f}", s.reason] for s in work.runs.stages]
    lines = in_columns(["stage", "outcome", "rows", "seconds", "why"], rows)
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


def _say_why(error: Exception, lines: Iterable[str]) -> None:
    """Say what went wrong, after a traceback if --debug asks for one; the exit code is the same."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    say(lines)


def _failed(error: Exception) -> int:
    """Say what went wrong; return the exit code."""
    if said := cause_outside(error):
        _say_why(error, [said])
        return 1
    if isinstance(error, UserrepError):
        _say_why(error, error.faults if isinstance(error, UsageError) else str(error).splitlines())
        return error.exit_code
    return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Say what went wrong in one line; wrong use of the command line has a message of its own kind."""
    if hasattr(error, "format_message"):
        message = error.format_message()
        if message.startswith("Usage:"):  # no command was given
            print(message, file=sys.stderr)
        else:
            end = "" if message.endswith((".", "?")) else "."
            say([f"{message}{end} `--help` shows what there is."])
        return 2
    _say_why(error, [f"{in_one_line(error)}. --debug shows the traceback; what was committed stays."])
    return 1


if __name__ == "__main__":
    main()

"""The command line: progress on stderr, results on stdout; exits with 0 done, 1 failed, 2 wrong use, 3 refused."""

import json
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from userrep.config import Config, load_config
from userrep.errors import UsageError, UserrepError, in_one_line
from userrep.ids import checked_name

app = typer.Typer(
    help="One frozen user embedding for many downstream models: event logs in, published snapshots out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
spaces_app = typer.Typer(
    help="The registry of embedding spaces: candidate, ready, serving, retired.", no_args_is_help=True
)
app.add_typer(spaces_app, name="spaces", rich_help_panel=None)

ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsOf = Annotated[str, typer.Option("--as-of", metavar="YYYY-MM-DD", help="Events before this date's 00:00 UTC count.")]


def _space_id(value: str | None) -> str | None:
    return None if value is None else checked_name(value, "space")


_INTERRUPTED = 130  # what Typer makes of Ctrl-C
SpaceId = Annotated[str, typer.Argument(metavar="SPACE", help="A space's id.", callback=_space_id)]


def main() -> None:
    """Run the command line; a deliberate error is one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except UserrepError as error:
        _say_why(error, error.faults if isinstance(error, UsageError) else str(error).splitlines())
        code = error.exit_code
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        code = _INTERRUPTED
    except Exception as error:
        code = _unexpected(error)
    if code == _INTERRUPTED:
        _say(["interrupted; what was committed stays, run the command again to go on."])
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def demo(overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Generate a log, run every stage on it with 2 Horovod ranks, train a consumer on the embeddings."""
    from userrep.demo import AS_OF, demo_config, ensure_log
    from userrep.runs import to_stderr

    config = demo_config(overrides or [])
    ensure_log(_session(config), config, to_stderr)
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
    day = _date(as_of)
    _run_pipeline(load_config(config_file, overrides or []), day, retrain=retrain, as_json=as_json)


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="A job of jobs/, for example build_activity_tiles.")],
    config_file: ConfigFile,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="YYYY-MM-DD", help="Default: the day after the log's last."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run one job of jobs/ by its name."""
    day = _date(as_of) if as_of else None
    config = load_config(config_file, overrides or [])
    from userrep.jobs import JOBS
    from userrep.pipeline import Pipeline

    if job not in JOBS:
        raise UsageError(f"run {job}: no such job; there are: {', '.join(JOBS)}.")
    work = Pipeline(config, _session(config), day)
    JOBS[job](work)
    _print_stages(work, as_json=as_json)


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="embeddings, features or item-vectors.")],
    config_file: ConfigFile,
    as_of: AsOf,
    out: Annotated[str, typer.Option("--out", help="Folder to write Parquet files and _manifest.json to.")],
    space: Annotated[
        str | None, typer.Option("--space", metavar="ID", help="Default: the space that serves.", callback=_space_id)
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write embeddings, features or item vectors of a date as Parquet; the newest revision counts.

    Features and item vectors of a date that is not built yet are built first.
    """
    day = _date(as_of)
    from userrep.export import EXPORTS, check_out

    if what not in EXPORTS:
        raise UsageError(f"export {what}: not known; there are: {', '.join(EXPORTS)}.")
    check_out(out)
    config = load_config(config_file, overrides or [])
    manifest = _export(what, config, day, out, space)
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    _print(manifest, [f"{what} of {day}: {manifest['num_rows']:,} rows in {out}"], as_json=as_json)


@app.command()
def status(config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what there is: days of tiles, rejected rows, spaces with their snapshots, the last run of each stage."""
    config = load_config(config_file, overrides or [])
    from userrep import status as state

    found = state.status(_tables(config))
    _print(found, state.status_lines(found), as_json=as_json)


@app.command()
def doctor(
    config_file: Annotated[Path | None, typer.Option("--config", help="Also check this configuration's root.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check this machine: versions that belong together, Java, Horovod, the root folder, Spark with Delta."""
    config = load_config(config_file, overrides or []) if config_file else None
    from userrep.doctor import findings

    found = []
    for finding in findings(config):
        found.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        _print({"checks": [asdict(finding) for finding in found]}, [], as_json=True)
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


@spaces_app.command("list")
def spaces_list(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all spaces with their states."""
    from userrep.spaces.registry import list_spaces

    spaces = list_spaces(_tables(load_config(config_file, overrides or [])))
    rows = [[s.space_id, s.state, str(s.trained_until), f"{s.created_at:%Y-%m-%d %H:%M}"] for s in spaces]
    lines = _table(["space", "state", "trained until", "created (UTC)"], rows) if rows else ["no space yet"]
    _print({"spaces": [vars(space) for space in spaces]}, lines, as_json=as_json)


@spaces_app.command("show")
def spaces_show(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show a space: its manifest, its metrics, its snapshots."""
    config = load_config(config_file, overrides or [])
    from userrep.model.artifact import load_artifact
    from userrep.spaces.registry import artifact_folder, find_space
    from userrep.spaces.snapshots import list_snapshots

    tables = _tables(config)
    found = find_space(tables, space)
    manifest = load_artifact(artifact_folder(config, space), found.content_hash).manifest
    snapshots = list_snapshots(tables, space)
    metrics = {name: value for name, value in manifest.metrics.items() if "." not in name}
    lines = [f"{key}: {value}" for key, value in vars(found).items()]
    lines += [f"inputs: {manifest.layout.width} in {len(manifest.layout.blocks)} blocks"]
    lines += [f"{name}: {value:.4g}" for name, value in metrics.items()]
    lines += [f"snapshot {s.snapshot_id}: {s.num_users:,} users" for s in snapshots]
    shown = {**vars(found), "manifest": manifest.model_dump(mode="json"), "snapshots": [vars(s) for s in snapshots]}
    _print(shown, lines, as_json=as_json)


@spaces_app.command("promote")
def spaces_promote(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let a ready space serve, in one commit; the one that served steps back to ready."""
    from userrep.spaces.registry import find_space, promote

    tables = _tables(load_config(config_file, overrides or []))
    promote(tables, find_space(tables, space))
    _print({"serving": space}, [f"space {space} is serving"], as_json=as_json)


@spaces_app.command("rollback")
def spaces_rollback(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Let the space serve again that served before."""
    from userrep.spaces.registry import rollback

    back = rollback(_tables(load_config(config_file, overrides or [])))
    _print({"serving": back.space_id}, [f"space {back.space_id} is serving again"], as_json=as_json)


@spaces_app.command("retire")
def spaces_retire(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take a space out of use; its tables stay."""
    from userrep.spaces.registry import find_space, retire

    tables = _tables(load_config(config_file, overrides or []))
    retire(tables, find_space(tables, space))
    _print({"retired": space}, [f"space {space} is retired"], as_json=as_json)


def _run_pipeline(config: Config, as_of: date, *, retrain: bool, as_json: bool) -> None:
    from userrep.pipeline import Pipeline

    work = Pipeline(config, _session(config), as_of)
    serving = work.run(retrain=retrain)
    _print_stages(work, as_json=as_json, serving=serving.space_id)


def _export(what: str, config: Config, day: date, out: str, space_id: str | None) -> dict[str, Any]:
    """Export, building features and item vectors first where the date has none."""
    from userrep.export import EXPORTS
    from userrep.features.build import feature_sets
    from userrep.items.versions import versions_of
    from userrep.pipeline import Pipeline
    from userrep.spaces.registry import SERVING, find_space, list_spaces

    tables = _tables(config)
    if what == "embeddings":
        return EXPORTS[what](tables, config, find_space(tables, space_id), day, out)
    versions = versions_of(tables, config, anchor=day)
    if space_id or any(space.state == SERVING for space in list_spaces(tables)):
        space = find_space(tables, space_id)
        if space.lineage_id != versions.lineage_id:
            raise UsageError(
                f"space {space.space_id} was trained with other columns, windows or item vectors than {what} of this "
                f"configuration have ({space.lineage_id}, here {versions.lineage_id}); use the configuration of then."
            )
    there = day in feature_sets(tables, versions.lineage_id) if what == "features" else not versions.missing([day])
    if not there:
        work = Pipeline(config, tables.spark, day)
        work.build_activity_tiles()
        work.train_item_vectors([day])
        if what == "features":
            work.build_user_features([day])
    return EXPORTS[what](tables, config, versions.lineage_id, day, out)


def _print_stages(work: Any, *, as_json: bool, serving: str | None = None) -> None:
    rows = [[s.stage, s.outcome, f"{s.num_rows:,}", f"{s.seconds:.1f}", s.reason] for s in work.runs.stages]
    lines = _table(["stage", "outcome", "rows", "seconds", "why"], rows)
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
        "auc": {outcome.input: outcome.auc for outcome in work.outcomes},
    }
    _print(result, lines, as_json=as_json)


def _session(config: Config) -> Any:
    """Start Spark, or take the session that is there; a root that can't be written to is refused before that."""
    from userrep.session import get_session
    from userrep.storage import artifacts_root, check_writable

    check_writable(artifacts_root(config))
    return get_session(config.spark.master, config.spark.conf)


def _tables(config: Config) -> Any:
    from userrep.tables import Tables

    return Tables.of(config, _session(config))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of {text}: not a date; write YYYY-MM-DD.") from None


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lay rows out in columns; numbers to the right, the last column as it is."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    is_number = [
        all(cell.replace(",", "").replace(".", "").isdigit() for cell in column) for column in zip(*rows, strict=True)
    ]

    def line(cells: list[str]) -> str:
        laid = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, is_number, strict=True)]
        return "  ".join(laid).rstrip()

    return [line(head), *(line(row) for row in rows)]


def _print(result: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, default=_plain))
    else:
        for line in lines:
            typer.echo(line)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"userrep: {line}", file=sys.stderr)


def _say_why(error: Exception, lines: Iterable[str]) -> None:
    """Say what went wrong, after a traceback if --debug asks for one; the exit code is the same."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    _say(lines)


def _unexpected(error: Exception) -> int:
    """Say what went wrong in one line; wrong use of the command line has a message of its own kind."""
    if hasattr(error, "format_message"):
        message = error.format_message()
        if message.startswith("Usage:"):  # no command was given
            print(message, file=sys.stderr)
        else:
            end = "" if message.endswith((".", "?")) else "."
            _say([f"{message}{end} `--help` shows what there is."])
        return 2
    _say_why(error, [f"{in_one_line(error)}. --debug shows the traceback; what was committed stays."])
    return 1


if __name__ == "__main__":
    main()

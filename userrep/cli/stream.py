"""``userrep stream``: near real time, and the proof that it agrees with the batch."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    AsOf,
    ConfigFile,
    Debug,
    InSpace,
    Overrides,
    as_date,
    print_result,
    session_of,
    tables_of,
)
from userrep.config import load_config
from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.logs import in_columns

app = typer.Typer(invoke_without_command=True)


def _checked(value: str | None) -> str | None:
    return None if value is None else checked_name(value, "query id")


@app.callback()
def stream(
    context: typer.Context,
    config_file: Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Take what has arrived, then end: for schedulers.")
    ] = False,
    new_query_id: Annotated[
        str | None,
        typer.Option(
            "--new-query-id",
            metavar="NAME",
            callback=_checked,
            help="Begin a new stream of this name, after a checkpoint was lost or with other sources.",
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Encode users anew as their events arrive, until Ctrl-C or SIGTERM; the batch at hand is finished first.

    Vectors of the next as-of date go to embedding_updates, and to Redis with stream.redis. Sources are named in the
    section stream; without it, new files of the log. Run again, it goes on where it was.
    """
    if context.invoked_subcommand is not None:
        return
    if config_file is None:
        raise UsageError("stream: --config is missing; name a configuration file.")
    config = load_config(config_file, overrides or [])
    from userrep.workflows.jobs import stop_on_signals
    from userrep.workflows.pipeline import Pipeline
    from userrep.workflows.stream import stream_embeddings

    done = stream_embeddings(
        Pipeline(config, session_of(config)),
        until_empty=until_empty,
        new_query_id=new_query_id,
        is_stopping=stop_on_signals(),
    )
    found = done.outputs()
    print_result(found, [f"{name}: {value}" for name, value in found.items()], as_json=as_json)


@app.command("verify")
def stream_verify(
    config_file: ConfigFile,
    as_of: AsOf,
    space: InSpace = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare the last streamed vectors of an as-of date with its snapshot: equal to the bit? Exits with 3 if not.

    Compared are all users with events on the day before the date, once the date's snapshot is published.
    """
    day = as_date(as_of)
    config = load_config(config_file, overrides or [])
    from userrep.spaces.registry import find_space
    from userrep.streaming.verify import verify_updates

    tables = tables_of(config)
    found = verify_updates(tables, find_space(tables, space), day)
    rows = [[name.replace("_", " "), f"{value:,}"] for name, value in found.counts().items()]
    lines = [*in_columns(["users", "number"], rows), f"equal to the bit: {found.share_equal:.4%}"]
    print_result(found.counts() | {"share_equal": found.share_equal}, lines, as_json=as_json)
    if not found.is_equal:
        raise typer.Exit(3)

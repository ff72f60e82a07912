"""``userrep stream``: embeddings in near real time, and their comparison with batch snapshots."""

from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    AsOf,
    ConfigFile,
    ConfigFileIfAny,
    Debug,
    InSpace,
    Overrides,
    as_date,
    print_result,
    required_config,
    session_of,
    tables_of,
)
from userrep.config import load_config
from userrep.ids import checked_name
from userrep.logs import in_columns

app = typer.Typer(invoke_without_command=True)


def _checked(value: str | None) -> str | None:
    return None if value is None else checked_name(value, "query id")


@app.callback()
def stream(
    context: typer.Context,
    config_file: ConfigFileIfAny,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Process the events that have arrived, then exit.")
    ] = False,
    new_query_id: Annotated[
        str | None,
        typer.Option(
            "--new-query-id",
            metavar="NAME",
            callback=_checked,
            help="Start a new stream with this name, after a lost checkpoint or with other sources.",
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Refresh embeddings as events arrive.

    Encodes users again when they have new events, until Ctrl-C or SIGTERM; the current batch is finished first. Vectors
    of the next as-of date go to embedding_updates and, with stream.redis, to Redis. Sources come from the
    configuration section stream; without it, new files of the event log are read. A restart continues where the stream
    stopped.
    """
    if context.invoked_subcommand is not None:
        return
    config = load_config(config_file or required_config(), overrides or [])
    from userrep.workflows.jobs import stop_on_signals
    from userrep.workflows.pipeline import Pipeline
    from userrep.workflows.stream import stream_embeddings

    progress = stream_embeddings(
        Pipeline(config, session_of(config)),
        until_empty=until_empty,
        new_query_id=new_query_id,
        is_stopping=stop_on_signals(),
    )
    outputs = progress.outputs()
    print_result(outputs, [f"{name}: {value}" for name, value in outputs.items()], as_json=as_json)


@app.command("verify")
def stream_verify(
    config_file: ConfigFile,
    as_of: AsOf,
    space: InSpace = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare streamed vectors with a snapshot.

    Compares the last streamed vector of each user with events on the day before the as-of date, once its snapshot is
    published. Exit code 3 if any vector is not bit-identical.
    """
    day = as_date(as_of)
    config = load_config(config_file, overrides or [])
    from userrep.spaces.registry import find_space
    from userrep.streaming.verify import verify_updates

    tables = tables_of(config)
    agreement = verify_updates(tables, find_space(tables, space), day)
    rows = [[name.replace("_", " "), f"{value:,}"] for name, value in agreement.counts().items()]
    lines = [*in_columns(["users", "count"], rows), f"bit-identical: {agreement.share_equal:.4%}"]
    print_result(agreement.counts() | {"share_equal": agreement.share_equal}, lines, as_json=as_json)
    if not agreement.is_equal:
        raise typer.Exit(3)

"""``userrep stream``: embeddings in near real time, and their comparison with batch snapshots."""

from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    AsOf,
    ConfigFile,
    InSpace,
    Output,
    Overrides,
    command,
    context_for_run,
    name_check,
    required_config,
    tables_of,
)
from userrep.config import Config, load_config
from userrep.errors import UsageError
from userrep.logs import in_columns

app = typer.Typer(invoke_without_command=True)


@app.callback()
@command
def stream(
    context: typer.Context,
    config_file: ConfigFile,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Process the events that have arrived, then exit.")
    ] = False,
    new_query_id: Annotated[
        str | None,
        typer.Option(
            "--new-query-id",
            metavar="NAME",
            callback=name_check("query id"),
            help="Start a new stream with this name, after a lost checkpoint or with other sources.",
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> Output | None:
    """Refresh embeddings as events arrive.

    Encodes users again when they have new events, until Ctrl-C or SIGTERM; the current batch is finished first. Vectors
    of the next as-of date go to embedding_updates and, with stream.redis, to Redis. Sources come from the
    configuration section stream; without it, new files of the event log are read. A restart continues where the stream
    stopped.
    """
    if context.invoked_subcommand is not None:
        source = context.get_parameter_source("config_file")
        if overrides or until_empty or new_query_id or as_json or (source is not None and source.name == "COMMANDLINE"):
            raise UsageError("stream: give options after `verify`, such as `userrep stream verify --config FILE`.")
        return None
    config = load_config(required_config(config_file), overrides or [])
    from userrep.workflows.jobs import stop_on_signals
    from userrep.workflows.stream import stream_embeddings

    received: list[int] = []
    stop_on_signals(received)  # also while Spark starts, which replaces the handler of SIGINT
    work = context_for_run(config)
    is_stopping = stop_on_signals(received)
    if is_stopping():
        return None
    progress = stream_embeddings(work, until_empty=until_empty, new_query_id=new_query_id, is_stopping=is_stopping)
    outputs = progress.outputs()
    return Output(outputs, [f"{name}: {value}" for name, value in outputs.items()])


@app.command("verify")
@command
def stream_verify(config: Config, as_of: AsOf, space: InSpace = None) -> Output:
    """Compare streamed vectors with a snapshot.

    Compares each user's last streamed vector with the vector in the published snapshot. Covers users with an event on
    the day before the as-of date, or with a streamed vector for it. Exit code 3 if any vector differs in a bit, or
    exists on only one side.
    """
    from userrep.spaces.registry import find_space
    from userrep.streaming.verify import verify_updates

    tables = tables_of(config)
    agreement = verify_updates(tables, find_space(tables, space), as_of)
    rows = [[name.replace("_", " "), f"{value:,}"] for name, value in agreement._asdict().items()]
    lines = [*in_columns(["users", "count"], rows), f"bit-identical: {agreement.share_equal:.4%}"]
    result = agreement._asdict() | {"share_equal": agreement.share_equal}
    return Output(result, lines, exit_code=0 if agreement.is_equal else 3)

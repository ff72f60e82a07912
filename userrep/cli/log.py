"""``userrep init``, ``inspect`` and ``validate``: from a log to a configuration that fits it, without Spark."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from userrep.cli.error_report import with_config
from userrep.cli.options import ConfigFile, Output, Overrides, command, path_option, required_config
from userrep.config import Config, load_config, parse_config
from userrep.errors import UsageError

if TYPE_CHECKING:
    from userrep.workflows.starter_config import Starter

logger = logging.getLogger(__name__)

_PATH_HELP = "File, folder or pattern: Parquet, Delta, JSON or CSV."


@command
def init(
    events: Annotated[str, path_option(f"Event log. {_PATH_HELP}", "PATH")],
    out: Annotated[Path | None, path_option("New file to write. Default: stdout.", "FILE")] = None,
    items: Annotated[str | None, path_option("Items table, for vectors from titles.", "PATH")] = None,
    users: Annotated[str | None, path_option("Users table, for attributes.", "PATH")] = None,
) -> Output:
    """Write a configuration for your event log.

    Reads the files' layout and a sample of their rows, guesses the columns, and chooses windows and dates that fit the
    log. Comments explain each key. Keys that cannot be guessed are written as FILL_ME and listed on stderr.
    """
    if out is not None and (out.exists() or not out.parent.is_dir()):
        why = "already exists, and init never overwrites a file" if out.exists() else "its folder does not exist"
        raise UsageError(f"--out {out}: {why}. Name another file.")
    from userrep.sources.listing import reads_below
    from userrep.workflows.starter_config import starter_config

    if out is not None and reads_below(events, str(out.parent)):
        raise UsageError(f"--out {out}: inside the log {events}, as its root would be. Name another folder.")
    starter = starter_config(events, items=items, users=users, file=out or Path("userrep.yaml"))
    if out is not None:
        _write_new(out, starter.text)
    for line in starter.warnings:
        logger.warning(line)
    for line in starter.open_keys:
        logger.info(line)
    result = {"config": starter.text, "out": out and str(out), "to_fill": starter.open_keys}
    lines = starter.text.splitlines() if out is None else [f"wrote {out}", *_next_steps(out, starter)]
    return Output(result | {"warnings": starter.warnings}, lines)


@command
def inspect(
    context: typer.Context,
    config_file: ConfigFile,
    events: Annotated[str | None, path_option(f"Event log to inspect instead. {_PATH_HELP}", "PATH")] = None,
    overrides: Overrides = None,
) -> Output:
    """Show what an event log contains.

    Shows days, events, users, items, nulls, duplicates and the heaviest users, then whether windows and dates fit the
    log, how many days of log are needed, and whether users and items have the ids of the log. Reads file footers and a
    sample of at most 2 million rows of each source. Each fact says whether it is exact or from the sample.
    """
    source = context.get_parameter_source("config_file")
    if events is None:
        config = load_config(required_config(config_file), overrides or [])
    elif source is not None and source.name == "COMMANDLINE":
        raise UsageError("inspect: give either --config or --events.")
    else:
        config = _guessed(events, overrides)
    from userrep.workflows.inspection import inspect_log, inspection_lines

    result = inspect_log(config)
    return Output(result, inspection_lines(result))


@command
def validate(config_file: ConfigFile, overrides: Overrides = None) -> Output:
    """Check a configuration and its sources.

    Checks keys, values, paths, formats, columns and types, and the end of training against the log's days if its file
    footers contain them. Prints `ok` and the sources whose columns only a run can check, or all faults with exit code
    2. Reads no rows, except those of a JSON source of a few megabytes.
    """
    unchecked: list[str] = []
    file = required_config(config_file)
    try:
        config = load_config(file, overrides or [])
        from userrep.workflows.validation import source_faults

        faults, unchecked = source_faults(config)
    except UsageError as error:
        faults = with_config(error.faults)
    lines = [] if faults else ["ok", *(f"not checked: columns of {source}" for source in unchecked)]
    for fault in faults:
        logger.error(fault)
    result = {"ok": not faults, "faults": faults, "unchecked": unchecked}
    return Output(result, lines, exit_code=2 if faults else 0)


def _guessed(events: str, overrides: list[str] | None) -> Config:
    """Return the configuration that ``init`` would write. Raises UsageError if a column could not be guessed."""
    if overrides:
        raise UsageError("inspect: --set changes a configuration; use it with --config.")
    from userrep.workflows.starter_config import starter_config

    starter = starter_config(events)
    if starter.open_keys:
        raise UsageError([*starter.open_keys, "inspect: write a configuration with `userrep init`, and use --config."])
    values: dict[str, Any] = yaml.safe_load(starter.text)
    return parse_config(values, "inspect")


def _next_steps(out: Path, starter: "Starter") -> list[str]:
    config = f"--config {shlex.quote(str(out))}"
    if starter.open_keys:
        return [f"next: replace FILL_ME, then userrep validate {config}"]
    pipeline = [f"      userrep pipeline {config} --as-of {starter.as_of}"] if starter.as_of else []
    return [f"next: userrep validate {config}", *pipeline]


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"--out {path}: not writable ({error.strerror}). Name another file.") from None

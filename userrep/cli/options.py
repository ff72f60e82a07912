"""What all commands share: their options, and how they print."""

import json
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from userrep.config import Config
from userrep.config.values import read_day
from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.logs import say_why

if TYPE_CHECKING:  # imported where they are used: --help and wrong use should not wait for Spark
    from pyspark.sql import SparkSession

    from userrep.store.tables import Tables


def checked_space_id(value: str | None) -> str | None:
    """Check a space's id as soon as it is read, before Spark starts."""
    return None if value is None else checked_name(value, "space")


def checked_consumer_name(value: str) -> str:
    """Check a consumer's name as soon as it is read."""
    return checked_name(value, "consumer")


ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsOf = Annotated[str, typer.Option("--as-of", metavar="YYYY-MM-DD", help="Events before this date's 00:00 UTC count.")]
Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", help="A consumer's name.", callback=checked_consumer_name)]
InSpace = Annotated[
    str | None,
    typer.Option("--space", metavar="ID", help="Default: the space that serves.", callback=checked_space_id),
]
SpaceId = Annotated[str, typer.Argument(metavar="SPACE", help="A space's id.", callback=checked_space_id)]


def session_of(config: Config) -> "SparkSession":
    """Start Spark, or take the session that is there; a root that can't be written to is refused before that."""
    from userrep.spark.session import get_session
    from userrep.store.storage import artifacts_root, check_writable

    check_writable(artifacts_root(config))
    return get_session(config.spark.master, config.spark.conf)


def session_for_run(config: Config, *as_ofs: date | None) -> "SparkSession":
    """Check root, sources and dates as far as that needs no Spark, then start Spark and print that it starts."""
    from userrep.features.preflight import check_before_spark
    from userrep.store.storage import artifacts_root, check_writable

    check_writable(artifacts_root(config))
    check_before_spark(config, [day for day in as_ofs if day is not None])
    return _started(config)


def tables_of(config: Config, *, writes: bool = False) -> "Tables":
    """Return the tables of a configuration; a root without any table is refused. Spark starts when something needs it.

    ``writes``: a root that can't be written to is refused as well.
    """
    from userrep.store.places import open_tables
    from userrep.store.storage import artifacts_root, check_writable

    if writes:
        check_writable(artifacts_root(config))
    tables = open_tables(config, None, start=lambda: _started(config), expected=True)
    tables.check_before_spark()
    return tables


def _started(config: Config) -> "SparkSession":
    from userrep.logs import to_stderr
    from userrep.spark.session import get_session

    to_stderr(f"starting Spark ({config.spark.master or 'the session at hand'}); root {config.root or config.catalog}")
    return get_session(config.spark.master, config.spark.conf)


def as_date(text: str, option: str = "--as-of") -> date:
    """Read the date of an option. Raises UsageError if it is none."""
    try:
        return read_day(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a date; write YYYY-MM-DD.") from None


def print_result(result: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result on stdout: the lines, or one JSON object."""
    if as_json:
        typer.echo(json.dumps(result, default=_plain))
    else:
        for line in lines:
            typer.echo(line)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def say(lines: Iterable[str]) -> None:
    """Print lines on stderr that say why the command ends as it does."""
    say_why(lines, who="userrep")

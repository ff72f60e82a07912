"""What the commands share: options, the configuration, sessions, tables, output and error messages."""

import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from pydantic_core import to_jsonable_python

from userrep.cli.error_report import with_config
from userrep.config import Config, load_config
from userrep.config.environment import under_submit
from userrep.config.values import expanded_path, read_as_of
from userrep.errors import UsageError, did_you_mean
from userrep.ids import checked_name

if TYPE_CHECKING:  # imported where needed, so that --help and usage errors do not wait for Spark
    from pyspark.sql import SparkSession

    from userrep.store.tables import Tables
    from userrep.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

PathOrText = TypeVar("PathOrText", Path, str, Path | None, str | None)


def name_check(what: str) -> Callable[[str | None], str | None]:
    """Return a check of an optional name. Typer calls it while it parses, before Spark starts."""
    return lambda value: None if value is None else checked_name(value, what)


checked_space_id, checked_consumer_name = name_check("space"), name_check("consumer")


def expanded(value: PathOrText) -> PathOrText:
    """Expand ``~`` and ``${NAME}`` in the path of an option, as in the configuration."""
    try:
        return type(value)(expanded_path(str(value))) if value else value
    except ValueError as error:
        raise UsageError(f"{value}: {error}.") from None


def as_date(text: str, option: str = "--as-of") -> date:
    """Parse the date of an option. Typer calls this. Raises UsageError if it is not YYYY-MM-DD, today or yesterday."""
    try:
        return read_as_of(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a date. Use YYYY-MM-DD, today or yesterday.") from None


def path_option(help: str, metavar: str | None = None) -> Any:  # noqa: A002  # as in Typer
    """Return an option for a path or URI, which is expanded as in the configuration."""
    return typer.Option(metavar=metavar, help=help, callback=expanded)


def date_option(name: str, help: str) -> Any:  # noqa: A002
    """Return an option for a date."""
    return typer.Option(name, metavar="YYYY-MM-DD", parser=partial(as_date, option=name), help=help)


def space_option(help: str, metavar: str = "ID") -> Any:  # noqa: A002
    """Return an option for a space id."""
    return typer.Option(metavar=metavar, help=help, callback=checked_space_id)


def choice_argument(name: str, choices: Sequence[str], command: str, *, elsewhere: Mapping[str, str] = {}) -> Any:
    """Return an argument that must be one of some names. Another one is refused before Spark or torch is imported.

    ``elsewhere``: names that are commands of their own, with these.
    """

    def checked(value: str | None) -> str | None:  # None: not given yet, in shell completion
        if value is None or value in choices:
            return value
        if value in elsewhere:
            raise UsageError(f"{command} {value}: this job is the command `{elsewhere[value]}`. Run that.")
        near = did_you_mean(value, choices)
        hint = f"; {near}" if near else "."
        raise UsageError(f"{command} {value}: unknown{hint} Choose one of: {', '.join(choices)}.")

    return typer.Argument(
        metavar=name, help=f"One of {', '.join(choices)}.", callback=checked, autocompletion=lambda: [*choices]
    )


def _found_config() -> Path | None:
    return Path("userrep.yaml") if Path("userrep.yaml").is_file() else None


def required_config(file: Path | None) -> Path:
    """Return the configuration file. Raises UsageError if there is none."""
    if file is None:
        raise UsageError(
            "no configuration: neither --config nor USERREP_CONFIG is set, and ./userrep.yaml does not exist. Name a "
            "file with --config, or write one with `userrep init --events PATH --out userrep.yaml`."
        )
    return file


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", envvar="USERREP_CONFIG", show_envvar=False, default_factory=_found_config,
        show_default=False, callback=expanded,
        help="Configuration file (YAML). Default: USERREP_CONFIG, or ./userrep.yaml."
    ),
]  # fmt: skip
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsOf = Annotated[date, date_option("--as-of", "Uses events before this date, 00:00 UTC. Also today or yesterday.")]
Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", help="Consumer name.", callback=checked_consumer_name)]
InSpace = Annotated[str | None, space_option("Space id. Default: the serving space.")]
SpaceId = Annotated[str, typer.Argument(metavar="SPACE", help="Space id.", callback=checked_space_id)]
Unrecorded = Annotated[
    bool, typer.Option("--unrecorded", help="Do not record the folder, for a read-only root; `forget` skips it.")
]


def _check_root(config: Config) -> None:
    """Raise UsageError if the root is not writable."""
    from userrep.store.open import artifacts_root
    from userrep.store.write_access import check_writable

    check_writable(artifacts_root(config))


def check_out_is_not_read(config: Config, out: str) -> None:
    """Check that an output folder is not inside a source, whose files are all read, or the root's tables.

    Raises UsageError.
    """
    from userrep.sources.listing import check_not_read
    from userrep.store.open import artifacts_root

    sources = [*config.events.all_sources.values(), config.items, config.users, config.onboarding]
    paths = [source.path for source in sources if source is not None and source.format != "table"]
    root = artifacts_root(config)
    check_not_read(out, (*paths, f"{root}/tables", f"{root}/artifacts"))


def session_of(config: Config, *, meanwhile: Callable[[], None]) -> "SparkSession":
    """Start a Spark session, with work that needs none meanwhile. Raises UsageError first if the root is read-only."""
    _check_root(config)
    return _start_session(config, _import_torch, meanwhile)


def context_for_run(config: Config, *as_ofs: date | None) -> "RunContext":
    """Check root, sources and dates as far as possible without Spark, then start Spark and open the run.

    The run's as-of date is the last of ``as_ofs``.

    Raises
    ------
    UsageError
        If a check fails.
    """
    from userrep.features.preflight import check_before_spark
    from userrep.sources.listing import Listings

    _check_root(config)
    listings = Listings()
    check_before_spark(config, [day for day in as_ofs if day], listings)
    spark = _start_session(config, _import_torch)
    from userrep.workflows.run_context import RunContext

    return RunContext(config, spark, as_ofs[-1] if as_ofs else None, listings=listings)


def tables_of(config: Config, *, writes: bool = False, expected: bool = True) -> "Tables":
    """Return the tables of a configuration. Spark starts only when it is first needed.

    Under spark-submit it starts now: a cluster manager counts an application without a session as failed.
    ``writes``: also check that the root is writable. ``expected``: whether it must have tables.

    Raises
    ------
    UsageError
        If the root has no tables but is expected to, or is not writable.
    """
    from userrep.store.open import open_tables

    if writes:
        _check_root(config)
    start = partial(_start_session, config)
    tables = open_tables(config, start() if under_submit() else start, expected=expected)
    tables.check_before_spark()
    return tables


def _start_session(config: Config, *meanwhile: Callable[[], None]) -> "SparkSession":
    """Log the start of Spark, and start it. The application has the name of the script: userrep, or a job's.

    ``meanwhile``: work to do in threads while Spark starts. Its errors are raised once Spark has started.
    """
    from userrep.spark.session import get_session

    logger.info(f"starting Spark ({_master(config)}); root {config.root or config.catalog}")
    with ThreadPoolExecutor() as pool:
        works = [pool.submit(work) for work in meanwhile]
        spark = get_session(config.spark.master, config.spark.conf, app_name=Path(sys.argv[0]).stem)
        for work in works:
            work.result()
    return spark


def _import_torch() -> None:
    """Import torch, which takes half as long as a start of Spark and does not import pyspark."""
    with suppress(Exception):  # it is raised again by the import that needs torch
        import_module("torch")


def _master(config: Config) -> str:
    """Return where Spark runs, for a log line."""
    if under_submit():
        return "spark-submit"
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        return "existing session"
    return config.spark.master or "local[*], because spark.master is null and this is not spark-submit"


class Output(NamedTuple):
    """What a command prints: ``result`` as a JSON object with --json, otherwise ``lines``; and its exit code."""

    result: dict[str, Any]
    lines: Iterable[str] = ()
    exit_code: int = 0


def _common_options(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Declare the options that ``command`` adds."""


def command(run: Callable[..., Output | None]) -> Callable[..., None]:
    """Make a function a command that Typer can register: add the common options, and print what it returns.

    A parameter ``config`` becomes --config and --set: the function gets the loaded configuration, or None if the
    annotation accepts None and there is no file. Parameters named like a common option get its value. A function that
    returns None has no result, or has printed it.
    """
    own, common = inspect.signature(run).parameters, dict(inspect.signature(_common_options).parameters)
    if "config" not in own:
        del common["config_file"], common["overrides"]
    parameters = [own[name] for name in own if name != "config" and name not in common] + [*common.values()]
    options = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]

    @wraps(run)
    def printing(**values: Any) -> None:
        if "config" in own:
            file = values["config_file"]
            if own["config"].annotation == Config:
                file = required_config(file)
            elif file is None and values["overrides"]:
                raise UsageError("--set changes a configuration. Name its file with --config.")
            values["config"] = load_config(file, values["overrides"] or []) if file else None
        output = run(**{name: values[name] for name in own})
        if output is None:
            return
        jsonable = partial(to_jsonable_python, output.result, fallback=str, inf_nan_mode="null")
        for line in [json.dumps(jsonable())] if values["as_json"] else with_config(output.lines):
            typer.echo(line)
        if output.exit_code:
            raise typer.Exit(output.exit_code)

    printing.__annotations__ = {option.name: option.annotation for option in options}
    printing.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return printing

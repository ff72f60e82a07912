"""The ``userrep`` command: its subcommands, and how errors become messages and exit codes.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 3 refused by a
gate or a problem found by ``check``, 4 the log is not complete yet, 143 ended by SIGTERM.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from userrep import __version__
from userrep.cli import consumers, estimate, evaluate, explain, export, forget, log, pipeline, report, spaces, stream
from userrep.cli.error_report import log_with_config, report_error, report_faults
from userrep.cli.options import AsJson, Output, command, tables_of
from userrep.config import Config
from userrep.errors import UsageError
from userrep.logs import begin_run, end_run

_HEADINGS = {
    "Build": "init inspect validate demo pipeline daily backfill run stream",
    "Consume": "export audience explain evaluate consumers spaces",
    "Operate": "nightly status check report doctor forget estimate",
}


class _UnderHeadings(TyperGroup):
    """A group whose help lists its commands under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        width = max(map(len, self.commands))
        for heading, names in _HEADINGS.items():
            commands = [self.commands[name] for name in names.split()]
            rows = [(f"{each.name:{width}}", each.get_short_help_str(formatter.width - width - 4)) for each in commands]
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_UnderHeadings,
    help="Turn event logs into one user embedding for many downstream models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(spaces.app, name="spaces")
app.add_typer(consumers.app, name="consumers")
app.add_typer(explain.app, name="explain")
app.add_typer(stream.app, name="stream")

_INTERRUPTED = 130  # Typer's exit code for Ctrl-C
_TERMINATED = 143  # of a shell, for SIGTERM
_CONTINUE = "Committed work is kept. Run the same command again to continue."


def main(*job: str) -> None:
    """Run the command line. On an error, print it on stderr and exit with its code; on success, return.

    It does not exit on success, since schedulers that call this as a function may treat any SystemExit as a failure.
    ``job``: the command of an entry point in jobs/, whose options follow it on the command line.
    """
    logging.getLogger().addFilter(_is_not_of_py4j)
    try:
        with _ended_by_sigterm():
            code = _exit_code(_arguments(job))
    finally:
        logging.getLogger().removeFilter(_is_not_of_py4j)
        end_run()
    if code:
        sys.exit(code)


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    """Drop the tracebacks that Py4J logs, by the root logger, for calls to Java that a signal interrupts."""
    return "/py4j/" not in record.pathname


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit in this block, so that leases are released and the stage is recorded as failed.

    Without a handler, the process would end at once or, as the first process of a container, ignore the signal. A
    handler of the program that calls this one is kept.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"userrep {__version__}")
        raise typer.Exit


@app.callback()
def common(
    run_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Run id. Default: USERREP_RUN_ID, or a new one.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options before the command."""
    if run_id is not None:
        begin_run(run_id)


for _command in (
    log.init, log.inspect, log.validate, pipeline.demo, pipeline.pipeline, pipeline.daily,
    pipeline.backfill, pipeline.run, pipeline.nightly, export.export, export.audience,
    evaluate.evaluate, estimate.estimate, forget.forget, report.report, report.check,
):  # fmt: skip
    app.command()(_command)
app.command("plan", hidden=True)(estimate.estimate)  # the former name, kept for one release


@app.command()
@command
def status(config: Config) -> Output:
    """Show tiles, spaces, snapshots and recent runs.

    Also shows rejected rows, storage, consumers with their newest verdicts, and open erasure requests.
    """
    from userrep.workflows import status as workflow

    state = workflow.status(tables_of(config), config)
    return Output(state, workflow.status_lines(state))


@app.command()
@command
def doctor(
    config: Config | None,
    as_json: AsJson,
    role: Annotated[
        Literal["producer", "consumer"], typer.Option("--as", help="Role to check this machine and user for.")
    ] = "producer",
    target: Annotated[
        str | None, typer.Option("--open", metavar="ROOT", help="For consumers: a root, or catalog.schema.")
    ] = None,
) -> Output:
    """Check that this machine can run userrep.

    For a producer, checks Python, Java, matching versions of Spark and Delta, and a Spark session with Delta; with a
    configuration, also that the root is writable, and Horovod if training uses it. For a consumer, checks that the
    registry, the snapshots and their vectors can be read, and lists what else this user may read and write; writes
    nothing.
    """
    if role == "consumer":
        from userrep.cli.consumer_checks import consumer_checks

        if (opened := target or config) is None:
            raise UsageError("--as consumer: no root to check. Pass --open ROOT or --config FILE.")
        results = consumer_checks(opened)
    elif target is not None:
        raise UsageError("--open is for --as consumer. Name a producer's root with --config FILE.")
    else:
        from userrep.cli.doctor import doctor_checks

        results = doctor_checks(config)
    checks = []
    for result in results:
        checks.append(result)
        if not as_json:
            typer.echo(str(result))
    return Output({"checks": checks}, exit_code=0 if all(check.ok for check in checks) else 1)


def _arguments(job: Sequence[str]) -> list[str]:
    """Return the arguments of this process, with the command of a job after ``--run-id``, as commands have it."""
    given = sys.argv[1:]
    start = next((k for k, word in enumerate(given) if word.partition("=")[0] == "--run-id"), None)
    if not job or start is None:
        return [*job, *given]
    stop = start + (1 if "=" in given[start] else 2)
    return [*given[start:stop], *job, *given[:start], *given[stop:]]


def _exit_code(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        begin_run()
        log_with_config()
        code = app(arguments, standalone_mode=False) or 0
    except typer.Abort:
        code = _INTERRUPTED
    except SystemExit as ended:
        if ended.code == _TERMINATED:
            report_faults(_TERMINATED, [f"terminated. {_CONTINUE}"], as_json=as_json)
        raise
    except Exception as error:
        code = report_error(error, as_json=as_json)
    if code == _INTERRUPTED:
        code = report_faults(1, [f"interrupted. {_CONTINUE}"], as_json=as_json)
    return code

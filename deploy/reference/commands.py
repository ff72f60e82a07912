"""The reference page on commands: `userrep` from Typer, and jobs/ from their argument parsers."""

import argparse
import runpy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import typer.main

from deploy.reference.markdown import MADE, REPOSITORY, paragraphs, table
from userrep.cli import main as cli

COMMON = ("config_file", "overrides", "as_json", "debug")
_BEGIN = """
`userrep` prints results on stdout and progress on stderr. Exit codes: 0 done, 1 failed, 2 wrong use or configuration,
3 a gate refused or `check` found a problem, 4 the log is not complete yet: retry later (only with
`freshness.error_after`). `userrep --run-id ID COMMAND` records the stages under that id (default: USERREP_RUN_ID, or a
new one). `userrep --version` prints the version. All commands take these, and only their own options are listed below:
"""


class _ParserComplete(BaseException):
    """Raised when a job's parser is complete."""


def commands_page() -> list[str]:
    """Return the lines of the page: a section for each command and each job."""
    lines = ["# Commands", "", MADE, *_BEGIN.rstrip().splitlines(), ""]
    commands = dict(leaf_commands())
    lines += table(["option", "meaning"], [_option(p)[::2] for p in commands["pipeline"].params if p.name in COMMON])
    lines += ["", "`demo` has a configuration of its own, `init` writes one, and `doctor` and `inspect` need none."]
    for name, command in commands.items():
        if command.hidden:
            continue
        own = [parameter for parameter in command.params if parameter.name not in COMMON]
        arguments = " ".join(_metavar(p) for p in own if p.param_type_name == "argument")
        lines += ["", f"## userrep {name}", "", f"    userrep {name} {arguments}".rstrip() + " [options]"]
        lines += ["", *paragraphs(command.help)]
        if own:
            lines += ["", *table(["option", "default", "meaning"], [_option(parameter) for parameter in own])]
    lines += ["", "## Jobs", "", "For `spark-submit`: `jobs/NAME.py`. Exit codes are those of `userrep`."]
    for path in sorted((REPOSITORY / "jobs").glob("*.py")):
        parser = job_parser(path.stem)
        lines += ["", f"### jobs/{path.name}", "", *paragraphs(parser.description)]
        rows = [_flag(action) for action in parser._actions if action.dest != "help"]
        lines += ["", *table(["option", "default", "meaning"], rows)]
    return lines


def leaf_commands() -> Iterator[tuple[str, Any]]:
    """Yield (name, click command) for all commands, including groups that can be run without a subcommand."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", {})
        if name and (not inner or command.invoke_without_command):
            yield name, command
        for sub in inner.values():
            yield from walk(sub, f"{name} {sub.name}".lstrip())

    yield from walk(typer.main.get_command(cli.app), "")


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _option(parameter: Any) -> list[str]:
    """Return an option's or argument's name, default and meaning."""
    text = parameter.help or ""
    if parameter.param_type_name == "argument":
        return [f"`{_metavar(parameter)}`", "required", text]
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if not parameter.is_flag:
        names = names[:-1] + f" {parameter.metavar or parameter.opts[0].lstrip('-').upper()}`"
    empty = parameter.default in (None, False, ()) or callable(parameter.default)
    return [names, "required" if parameter.required else "" if empty else f"`{parameter.default}`", text]


def job_parser(name: str) -> argparse.ArgumentParser:
    """Return a job's parser. The job is run until it would parse its command line."""
    job = str(REPOSITORY / "jobs" / f"{name}.py")
    parsers: list[argparse.ArgumentParser] = []

    def read(parser: argparse.ArgumentParser, *_: object) -> None:
        parsers.append(parser)
        raise _ParserComplete

    with patch.object(argparse.ArgumentParser, "parse_args", read), suppress(_ParserComplete):
        runpy.run_path(job, run_name="__main__")
    return parsers[0]


def _flag(action: argparse.Action) -> list[str]:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    empty = action.default in (None, False, []) or action.default is argparse.SUPPRESS
    default = "required" if action.required else "" if empty else f"`{action.default}`"
    text = (action.help or "").replace(" (%(default)s)", "")
    return [f"`{action.option_strings[0]}{value}`", default, text]

"""The reference page on commands: `userrep` from Typer, and the entry points in jobs/."""

import argparse
import re
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
3 a gate refused or `check` found a problem, 4 the log is not complete yet, so retry later
([details](../how-to/schedulers.md)). `userrep --run-id ID COMMAND` records the stages under that id (default:
USERREP_RUN_ID, or a new one). `userrep --version` prints the version. `userrep --install-completion` makes the shell
complete commands, options, jobs and exports. With `--json`, a command that fails also prints an object such as
`{"exit_code": 2, "faults": ["…"]}` on stdout. Commands take these options,
except that `init` has no `--config` and no `--set`, and `demo` has no `--config`. The sections below list only the
options of each command:
"""
_JOBS = """
For `spark-submit`: `jobs/NAME.py` is a command of `userrep`, with its options, `--run-id` and exit codes.
"""


class _ParserComplete(BaseException):
    """Raised when a parser is complete."""


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
    lines += ["", "## Jobs", "", *_JOBS.strip().splitlines()]
    for path in sorted((REPOSITORY / "jobs").glob("*.py")):
        lines += ["", f"### jobs/{path.name}", "", *paragraphs(runpy.run_path(str(path))["__doc__"])]
        if command := job_command(path.stem):
            lines += ["", f"Takes the options of `userrep {command}`."]
        else:
            rows = [_flag(action) for action in generator_options()]
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
    empty = parameter.default in (None, False, (), "") or callable(parameter.default)
    return [names, "required" if parameter.required else "" if empty else f"`{parameter.default}`", text]


def job_command(name: str) -> str | None:
    """Return the command that a job stands for, such as ``run embed_users``; None for the generator of logs."""
    text = (REPOSITORY / "jobs" / f"{name}.py").read_text(encoding="utf-8")
    call = re.search(r"^    main\((.+)\)$", text, re.MULTILINE)
    return call and call[1].replace('"', "").replace(",", "")


def generator_options() -> list[argparse.Action]:
    """Return the options of the generator of logs, which is run until it would parse its command line."""
    job = str(REPOSITORY / "jobs" / "generate_events.py")
    parsers: list[argparse.ArgumentParser] = []

    def read(parser: argparse.ArgumentParser, *_: object) -> None:
        parsers.append(parser)
        raise _ParserComplete

    with patch.object(argparse.ArgumentParser, "parse_args", read), suppress(_ParserComplete):
        runpy.run_path(job, run_name="__main__")
    return [action for action in parsers[0]._actions if action.dest != "help"]


def _flag(action: argparse.Action) -> list[str]:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    empty = action.default in (None, False, []) or action.default is argparse.SUPPRESS
    default = "required" if action.required else "" if empty else f"`{action.default}`"
    text = (action.help or "").replace(" (%(default)s)", "")
    return [f"`{action.option_strings[0]}{value}`", default, text]

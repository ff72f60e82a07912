"""The command line without Spark: what it reads of the arguments that schedulers give it."""

import sys
from collections.abc import Sequence

import pytest

from userrep import cli, cli_forget
from userrep.config import Config


class Begun(BaseException):
    """All was read and checked; what follows needs Spark."""


def configuration_of(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Config, list[str | None]]:
    """Call ``userrep`` up to where Spark would start; return the configuration, and the run ids that were asked for.

    Wrong use ends in SystemExit, as from a shell.
    """
    read: list[Config] = []
    run_ids: list[str | None] = []

    def begin(config: Config) -> None:
        read.append(config)
        raise Begun

    monkeypatch.setattr(cli, "session_of", begin)
    monkeypatch.setattr(cli_forget, "tables_of", begin)
    monkeypatch.setattr(cli, "begin_run", lambda run_id=None: run_ids.append(run_id))
    monkeypatch.setattr(sys, "argv", ["userrep", *arguments])
    with pytest.raises(Begun):
        cli.main()
    return read[0], run_ids

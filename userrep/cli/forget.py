"""``userrep forget``: users taken out of everything, and kept out."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import AsJson, ConfigFile, Debug, Overrides, print_result, tables_of
from userrep.config import load_config


def forget(
    config_file: ConfigFile,
    users: Annotated[
        Path | None,
        typer.Option("--users", metavar="FILE", help="Text, one user id a line. Without it: end earlier requests."),
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Remove files of older versions at once, not after a week. Wants all other runs to have ended.",
        ),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take users out of all tables, snapshots, exports and the online store, and keep them out.

    Their rows in the log, the users and the picks are passed over from then on; the sources themselves are yours to
    clean. Prints a receipt without ids. Cut off, the same command goes on.

    Older versions of Delta tables hold the rows for 7 days more. Run `userrep forget` without --users after that, for
    instance every night: it removes them, and whatever a run that was under way has brought back.
    """
    config = load_config(config_file, overrides or [])
    from userrep.erasure.erasure import Erasure, read_ids
    from userrep.erasure.receipt import receipt_lines
    from userrep.logs import to_stderr

    user_ids = read_ids(users) if users else []
    receipt = Erasure(tables_of(config, writes=True), config, user_ids, to_stderr).run(now=now)
    print_result(receipt, receipt_lines(receipt), as_json=as_json)

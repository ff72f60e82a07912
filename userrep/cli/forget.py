"""``userrep forget``: erase users."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import Output, command, path_option, tables_of
from userrep.config import Config


@command
def forget(
    config: Config,
    users: Annotated[
        Path | None, path_option("--users", "One user id per line. Default: complete earlier requests.", metavar="FILE")
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Remove files of older table versions now instead of after 7 days. Stop all other runs first."
        ),
    ] = False,
) -> Output:
    """Erase users from all tables and exports.

    Also erases them from snapshots and the online store. Later runs ignore their rows in the source tables, which you
    must clean yourself. Prints a receipt without user ids. If interrupted, run the same command again.

    Older versions of the Delta tables keep the rows for 7 more days. Run `userrep forget` without --users after that,
    for example daily. It removes them, and any rows that a concurrent run has written back.
    """
    from userrep.erasure.receipt import receipt_lines
    from userrep.erasure.requests import Erasure, read_ids
    from userrep.logs import to_stderr

    user_ids = read_ids(users) if users else []
    receipt = Erasure(tables_of(config, writes=True), config, user_ids, to_stderr).run(now=now)
    return Output(receipt, receipt_lines(receipt))

"""``userrep forget``: erase users."""

from typing import Annotated, Any

import typer

from userrep.cli.options import Output, command, path_option, tables_of
from userrep.config import Config
from userrep.errors import plural


@command
def forget(
    config: Config,
    users: Annotated[
        str | None,
        path_option(
            "Text with one user id per line, or CSV or Parquet with a column user_id. "
            "Default: complete earlier requests.",
            "FILE",
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Remove files of older table versions now instead of after 7 days. Stop all other runs first."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the rows and files that would be rewritten. Writes nothing.")
    ] = False,
) -> Output:
    """Erase users from all tables and exports.

    Also erases them from snapshots and the online store. Later runs ignore their rows in the source tables, which you
    must clean yourself. Prints a receipt without user ids. If interrupted, run the same command again.

    Older versions of the Delta tables keep the rows for 7 more days. Run `userrep forget` without --users after that,
    for example daily. It removes them, and any rows that a concurrent run has written back.
    """
    from userrep.erasure.receipt import receipt_lines
    from userrep.erasure.requests import Erasure
    from userrep.sources.id_files import read_id_file

    user_ids = read_id_file(users, "--users").user_ids.to_pylist() if users else []
    if dry_run:
        from userrep.erasure.preview import preview

        effect = preview(tables_of(config), config, user_ids, now=now)
        return Output(effect, _preview_lines(effect))
    receipt = Erasure(tables_of(config, writes=True), config, user_ids).run(now=now)
    return Output(receipt, receipt_lines(receipt))


def _preview_lines(effect: dict[str, Any]) -> list[str]:
    from userrep.report.formats import size

    lines = ["dry run of forget; nothing was written"]
    if effect["num_users"]:
        lines.append(f"{plural(effect['num_users'], 'user')}, {effect['num_with_rows']:,} of them with rows")
    else:
        lines.append(
            f"{plural(effect['open_requests'], 'open request')}, {effect['due_requests']:,} of them would be finished"
        )
    lines += [
        f"{name}: {plural(part['rows'], 'row')}"
        + (f"; {plural(part['files'], 'file')} would be rewritten ({size(part['bytes'])})" if part["files"] else "")
        for name, part in effect["tables"].items()
    ]
    lines += ["training_rows: all rows would be dropped"] if effect["training_rows_dropped"] else []
    lines += [f"export {path}: {result}" for path, result in effect["exports"].items()]
    lines += [f"online store: vectors of {plural(effect['online_spaces'], 'space')} would be deleted"] * bool(
        effect["online_spaces"]
    )
    lines += [f"stream {name}: its checkpoint would be removed" for name in effect["checkpoints_removed"]]
    return lines + [f"running now: {run}. An erasure next to it would not be finished" for run in effect["under_way"]]

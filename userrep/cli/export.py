"""``userrep export``: embeddings, features or item vectors as Parquet."""

from datetime import date
from typing import Annotated, Any

import typer

from userrep.cli.options import AsOf, InSpace, Output, Unrecorded, choice_argument, command, path_option, tables_of
from userrep.config import Config, Storage
from userrep.errors import UsageError, plural

EXPORTED = ("embeddings", "features", "item-vectors")  # the keys of EXPORTS, whose module is slow to import


@command
def export(
    what: Annotated[str, choice_argument("WHAT", EXPORTED, "export")],
    config: Config,
    as_of: AsOf,
    out: Annotated[str, path_option("--out", "Folder for the Parquet files and _manifest.json.")],
    space: InSpace = None,
    storage: Annotated[Storage, typer.Option("--storage", help="Type of the numbers of embeddings.")] = "float32",
    unrecorded: Unrecorded = False,
) -> Output:
    """Export embeddings, features or item vectors.

    Writes the newest revision of a date as Parquet. Builds nothing: if the date is missing, the error names the
    command that builds it. The folder is recorded first, so that `userrep forget` can erase users in it.
    """
    from userrep.store.export_folder import check_out

    if storage != "float32" and what != "embeddings":
        raise UsageError(f"export {what}: --storage applies only to embeddings. Leave it out.")
    check_out(out)
    manifest = _export(what, config, as_of, out, space, storage=storage, recorded=not unrecorded)
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    lines = [f"{what} of {as_of}: {plural(manifest['num_rows'], 'row')} in {out}"]
    if num_at_limit := manifest.get("num_at_limit"):
        lines.append(f"{num_at_limit:,} numbers are at the limit of {storage}, most of them clipped")
    return Output(manifest, lines)


def _export(
    what: str, config: Config, day: date, out: str, space_id: str | None, *, storage: Storage, recorded: bool
) -> dict[str, Any]:
    """Export from the lineage of the space, or of the configuration if there is no space yet."""
    from userrep.items.versions import lineage_of
    from userrep.spaces.registry import check_lineage, find_space, read_registry
    from userrep.workflows.export import EXPORTS

    tables = tables_of(config)
    if what == "embeddings":
        space = find_space(tables, space_id)
        return EXPORTS[what](tables, config, space, day, out, storage=storage, recorded=recorded)
    lineage_id = lineage_of(config)
    if space_id or read_registry(tables).serving:
        check_lineage(find_space(tables, space_id), config)
    if what == "item-vectors":
        return EXPORTS[what](tables, config, lineage_id, day, out)
    return EXPORTS[what](tables, config, lineage_id, day, out, recorded=recorded)

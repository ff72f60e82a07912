"""``userrep export`` and ``audience``: embeddings, features, item vectors and look-alike audiences as Parquet."""

from datetime import date
from typing import Annotated, Any

import typer

from userrep.cli.options import (
    AsOf,
    InSpace,
    Output,
    Unrecorded,
    check_out_is_not_read,
    choice_argument,
    command,
    date_option,
    path_option,
    tables_of,
)
from userrep.config import Config, Storage
from userrep.errors import UsageError, plural
from userrep.logs import in_columns

EXPORTED = ("embeddings", "features", "item-vectors")
_FILE = "text with one id per line, CSV or Parquet with a column user_id, or the folder of an export or audience"


@command
def export(
    what: Annotated[str, choice_argument("WHAT", EXPORTED, "export")],
    config: Config,
    as_of: AsOf,
    out: Annotated[str, path_option("Folder for the Parquet files and _manifest.json.")],
    space: InSpace = None,
    storage: Annotated[Storage, typer.Option(help="Type of the numbers of embeddings.")] = "float32",
    unrecorded: Unrecorded = False,
) -> Output:
    """Export embeddings, features or item vectors.

    Writes the newest revision of a date as Parquet. Builds nothing: if the date is missing, the error names the
    command that builds it. The folder is recorded first, so that `userrep forget` can erase users in it.
    """
    from userrep.store.export_folder import check_out

    if storage != "float32" and what != "embeddings":
        raise UsageError(f"export {what}: --storage applies only to embeddings. Leave it out.")
    if unrecorded and what == "item-vectors":
        raise UsageError("export item-vectors: --unrecorded applies only to exports with users. Leave it out.")
    check_out(out)
    check_out_is_not_read(config, out)
    from userrep.spaces.registry import check_lineage, find_space, read_registry
    from userrep.workflows import export as workflow

    tables = tables_of(config)
    if what == "embeddings":
        manifest = workflow.export_embeddings(
            tables, config, find_space(tables, space), as_of, out, storage=storage, recorded=not unrecorded
        )
    else:
        registry = read_registry(tables)
        if space or registry.serving:
            check_lineage(registry.space(space), config)
        if what == "features":
            manifest = workflow.export_features(tables, config, as_of, out, recorded=not unrecorded)
        else:
            manifest = workflow.export_item_vectors(tables, config, as_of, out)
    manifest.pop("sha256")
    lines = [f"{what} of {as_of}: {plural(manifest['num_rows'], 'row')} in {out}"]
    if num_at_limit := manifest.get("num_at_limit"):
        lines.append(f"{num_at_limit:,} numbers are at the limit of {storage}, most of them clipped")
    return Output(manifest, lines)


@command
def audience(
    config: Config,
    seeds: Annotated[str, path_option(f"Users to resemble: {_FILE}.", "FILE")],
    size: Annotated[int, typer.Option(min=1, metavar="N", help="Number of users in the audience.")],
    out: Annotated[str, path_option("New folder for the Parquet files and _manifest.json.")],
    exclude: Annotated[
        str | None, path_option("Users to leave out, such as opt-outs, in a format of --seeds.", "FILE")
    ] = None,
    as_of: Annotated[date | None, date_option("--as-of", "Date of the snapshot. Default: the newest.")] = None,
    space: InSpace = None,
    unrecorded: Unrecorded = False,
) -> Output:
    """Find the users who resemble a seed list most.

    Scores all users of a snapshot and writes the best of them, with a calibrated score each. Seeds are not among them.
    What a linear model can read of the attributes in users.protected is removed first. The folder is recorded, so that
    `userrep forget` can erase users in it.
    """
    from userrep.audiences.audience import build_audience
    from userrep.sources.id_files import read_id_file
    from userrep.store.export_folder import check_out, check_recordable

    check_out(out, keeps_complete=True)
    check_out_is_not_read(config, out)
    listed = read_id_file(seeds, "--seeds")
    left_out = read_id_file(exclude, "--exclude").user_ids if exclude else None
    tables = tables_of(config)
    if not unrecorded:
        check_recordable(tables, out)
    built = build_audience(tables, config.users, listed, size, exclude=left_out, as_of=as_of, space=space)
    manifest = built.write(out, recorded=not unrecorded)
    return Output(manifest, [*_lines(manifest), f"audience of {manifest['as_of']}: {plural(size, 'user')} in {out}"])


def _lines(manifest: dict[str, Any]) -> list[str]:
    """Return the table of sizes, and what was removed."""
    head = ["size", "seeds_found", "precision", "lift"]
    rows = [[f"{row['size']:,}", *(str(row[name]) for name in head[1:])] for row in manifest["sizes"]]
    probes = manifest["protected"]["probes"]
    removed = [
        f"removed {probe['attribute']}: AUC of a linear model {probe['auc_before']:.2f} before, "
        f"{probe['auc_after']:.2f} after"
        for probe in probes
    ]
    return [
        f"{plural(manifest['seeds']['used'], 'seed')}, held-out AUC {manifest['auc']}",
        *in_columns(head, rows),
        *removed,
    ]

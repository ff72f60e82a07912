"""``userrep spaces``: the registry of embedding spaces."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    SpaceId,
    checked_space_id,
    print_result,
    tables_of,
)
from userrep.config import Config, load_config
from userrep.errors import UsageError
from userrep.logs import in_columns

if TYPE_CHECKING:
    from userrep.model.self_check import SelfCheck
    from userrep.spaces.registry import Space

app = typer.Typer(help="The registry of embedding spaces: candidate, ready, serving, retired.", no_args_is_help=True)


@app.command("list")
def spaces_list(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all spaces with their states."""
    from userrep.spaces.registry import read_registry

    config = load_config(config_file, overrides or [])
    registry = read_registry(tables_of(config))
    checks = {space.space_id: _self_check(config, space) for space in registry.spaces}
    used = registry.spaces_in_use()
    rows = [
        [
            s.space_id, s.state, str(s.trained_until), f"{s.created_at:%Y-%m-%d %H:%M}", used.get(s.space_id, "-"),
            check.summary if (check := checks[s.space_id]) else "-",
        ]
        for s in registry.spaces
    ]  # fmt: skip
    head = ["space", "state", "trained until", "created (UTC)", "embedded daily", "self-check"]
    found = [vars(space) | {"in_use": used.get(space.space_id)} for space in registry.spaces]
    for space, check in zip(found, checks.values(), strict=True):
        space["self_check"] = check and check.model_dump(mode="json")
    print_result({"spaces": found}, in_columns(head, rows) if rows else ["no space yet"], as_json=as_json)


def _self_check(config: Config, space: "Space") -> "SelfCheck | None":
    """Read what a space's self-check has found; None without one, or if its artifact is gone."""
    from userrep.errors import ArtifactError
    from userrep.model.artifact import read_manifest
    from userrep.spaces.registry import artifact_folder

    try:
        return read_manifest(artifact_folder(config, space)).self_check
    except ArtifactError:
        return None


@app.command("show")
def spaces_show(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show a space: its manifest, its metrics, its snapshots."""
    config = load_config(config_file, overrides or [])
    from userrep.model.artifact import load_artifact
    from userrep.spaces.registry import artifact_folder, find_space
    from userrep.spaces.snapshots import list_snapshots

    tables = tables_of(config)
    found = find_space(tables, space)
    folder = artifact_folder(config, found)
    manifest = load_artifact(folder, found.content_hash).manifest
    snapshots = list_snapshots(tables, found.space_id)
    metrics = {name: value for name, value in manifest.metrics.items() if "." not in name}
    lines = [f"{key}: {value}" for key, value in vars(found).items() if key != "maps"]
    lines += [f"artifact: {folder}", *(f"map into {space_id}: {content_hash}" for space_id, content_hash in found.maps)]
    lines += [f"inputs: {manifest.layout.width} in {len(manifest.layout.blocks)} blocks"]
    lines += [f"{name}: {value:.4g}" for name, value in metrics.items()]
    lines += [f"dimension {place} of 0 to {manifest.model.latent_dim - 1}: {name}"
              for name, place in manifest.named_dimensions.items()]  # fmt: skip
    if check := manifest.self_check:
        lines += check.lines
    lines += [f"snapshot {s.snapshot_id}: {s.num_users:,} users" for s in snapshots]
    shown = vars(found) | {"maps": dict(found.maps), "artifact": folder, "manifest": manifest.model_dump(mode="json")}
    shown["snapshots"] = [vars(s) for s in snapshots]
    print_result(shown, lines, as_json=as_json)


@app.command("diff")
def spaces_diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The earlier space.", callback=checked_space_id)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The newer one.", callback=checked_space_id)],
    config_file: ConfigFile,
    model: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A saved pipeline with an EmbeddingJoin on OLD; with --labels.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Its labels, Parquet: the join's columns, and label (0 or 1)."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say how far NEW's vectors, mapped into OLD's coordinates, are OLD's, and what OLD's models lose by it.

    On users and as-of dates that both have embedded; the map is fitted on nine users of ten and judged on the tenth.
    It is kept beside NEW's artifact: consumers of OLD may read NEW through it (EmbeddingJoin's mappedFrom).
    """
    if (model is None) != (labels is None):
        raise UsageError("--model and --labels go together: a saved pipeline, and labels to judge it by.")
    config = load_config(config_file, overrides or [])
    from userrep.logs import to_stderr
    from userrep.spaces.registry import find_space
    from userrep.workflows.space_diff import SavedModel, diff_lines, diff_spaces

    tables = tables_of(config, writes=True)
    spaces = {"old": find_space(tables, old), "new": find_space(tables, new)}
    own = SavedModel(model, labels) if model and labels else None
    found = diff_spaces(tables, config, **spaces, model=own, report=to_stderr)
    print_result(asdict(found), diff_lines(found), as_json=as_json)


@app.command("promote")
def spaces_promote(
    space: SpaceId,
    config_file: ConfigFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to; change nothing.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let a ready space serve, in one commit; the one that served steps back to ready.

    Refused, with exit code 3, while a consumer that follows is not ready for it. Pinned consumers stay where they are.
    """
    from userrep.spaces.registry import find_space, promote, read_registry
    from userrep.spaces.transitions import planned_promotion

    tables = tables_of(load_config(config_file, overrides or []), writes=not dry_run)
    if not dry_run:
        promote(tables, find_space(tables, space))
        return print_result({"serving": space}, [f"space {space} is serving"], as_json=as_json)
    planned = planned_promotion(read_registry(tables), space)
    pinned = [f"{consumer.name} ({consumer.pinned_space_id})" for consumer in planned.pinned]
    lines = [
        f"space {space} {'would not serve' if planned.blocks else 'would serve'}; now: {planned.serving or 'none'}"
    ]
    for what, names in (
        ("would move", [consumer.name for consumer in planned.moves]),
        ("block it, not ready yet", [consumer.name for consumer in planned.blocks]),
        ("stay pinned", pinned),
    ):
        lines.append(f"{what}: {', '.join(names) or 'none'}")
    result = asdict(planned) | {"would_serve": not planned.blocks}
    return print_result(result, lines, as_json=as_json)


@app.command("rollback")
def spaces_rollback(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Let the space serve again that served before; no consumer blocks it.

    Run again it changes nothing. To go further back, retire the space that it has left, and roll back once more.
    """
    from userrep.spaces.registry import rollback

    back = rollback(tables_of(load_config(config_file, overrides or []), writes=True))
    print_result({"serving": back.space_id}, [f"space {back.space_id} is serving again"], as_json=as_json)


@app.command("retire")
def spaces_retire(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take a space out of use for good; its tables stay. Refused while it serves or a consumer is pinned to it."""
    from userrep.spaces.registry import find_space, retire

    tables = tables_of(load_config(config_file, overrides or []), writes=True)
    retire(tables, find_space(tables, space))
    print_result({"retired": space}, [f"space {space} is retired"], as_json=as_json)

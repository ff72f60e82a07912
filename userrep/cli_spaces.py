"""``userrep spaces``: the registry of embedding spaces."""

import typer

from userrep.config import load_config
from userrep.console import AsJson, ConfigFile, Debug, Overrides, SpaceId, in_columns, print_result, tables_of

app = typer.Typer(help="The registry of embedding spaces: candidate, ready, serving, retired.", no_args_is_help=True)


@app.command("list")
def spaces_list(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all spaces with their states."""
    from userrep.spaces.registry import list_spaces

    spaces = list_spaces(tables_of(load_config(config_file, overrides or [])))
    rows = [[s.space_id, s.state, str(s.trained_until), f"{s.created_at:%Y-%m-%d %H:%M}"] for s in spaces]
    lines = in_columns(["space", "state", "trained until", "created (UTC)"], rows) if rows else ["no space yet"]
    print_result({"spaces": [vars(space) for space in spaces]}, lines, as_json=as_json)


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
    manifest = load_artifact(artifact_folder(config, space), found.content_hash).manifest
    snapshots = list_snapshots(tables, space)
    metrics = {name: value for name, value in manifest.metrics.items() if "." not in name}
    lines = [f"{key}: {value}" for key, value in vars(found).items()]
    lines += [f"inputs: {manifest.layout.width} in {len(manifest.layout.blocks)} blocks"]
    lines += [f"{name}: {value:.4g}" for name, value in metrics.items()]
    lines += [f"snapshot {s.snapshot_id}: {s.num_users:,} users" for s in snapshots]
    shown = {**vars(found), "manifest": manifest.model_dump(mode="json"), "snapshots": [vars(s) for s in snapshots]}
    print_result(shown, lines, as_json=as_json)


@app.command("promote")
def spaces_promote(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let a ready space serve, in one commit; the one that served steps back to ready."""
    from userrep.spaces.registry import find_space, promote

    tables = tables_of(load_config(config_file, overrides or []))
    promote(tables, find_space(tables, space))
    print_result({"serving": space}, [f"space {space} is serving"], as_json=as_json)


@app.command("rollback")
def spaces_rollback(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Let the space serve again that served before."""
    from userrep.spaces.registry import rollback

    back = rollback(tables_of(load_config(config_file, overrides or [])))
    print_result({"serving": back.space_id}, [f"space {back.space_id} is serving again"], as_json=as_json)


@app.command("retire")
def spaces_retire(
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take a space out of use; its tables stay."""
    from userrep.spaces.registry import find_space, retire

    tables = tables_of(load_config(config_file, overrides or []))
    retire(tables, find_space(tables, space))
    print_result({"retired": space}, [f"space {space} is retired"], as_json=as_json)

"""``userrep consumers``: who trains on which space, and who is ready for the next."""

from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Consumer,
    Debug,
    Overrides,
    SpaceId,
    checked_space_id,
    print_result,
    tables_of,
)
from userrep.config import load_config
from userrep.logs import in_columns

app = typer.Typer(
    help="The registry of consumers: each follows the space that serves, or is pinned to one.", no_args_is_help=True
)


@app.command("list")
def consumers_list(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all consumers: whose they are, what they use, what they are ready for, what they were trained on."""
    from userrep.spaces.registry import read_registry

    registry = read_registry(tables_of(load_config(config_file, overrides or [])))
    serving = registry.serving.space_id if registry.serving else None
    rows = [
        [
            consumer.name,
            consumer.owner,
            f"serving ({serving or 'none yet'})" if consumer.follows else f"{consumer.pinned_space_id} (pinned)",
            consumer.ready_for or "-",
            consumer.training_set_id or "-",
            f"{consumer.last_seen_at:%Y-%m-%d %H:%M}",
        ]
        for consumer in registry.consumers
    ]
    head = ["consumer", "owner", "uses", "ready for", "training set", "last seen (UTC)"]
    found = [vars(c) | {"follows": c.follows, "space_id": c.pinned_space_id or serving} for c in registry.consumers]
    print_result({"consumers": found}, in_columns(head, rows) if rows else ["no consumer yet"], as_json=as_json)


@app.command("register")
def consumers_register(
    consumer: Consumer,
    owner: Annotated[str, typer.Option("--owner", help="The team or person to ask.")],
    config_file: ConfigFile,
    pin: Annotated[
        str | None,
        typer.Option("--pin", metavar="SPACE", help="Default: follow what serves.", callback=checked_space_id),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Register a consumer, which follows the space that serves or is pinned to one; its owner may repeat it."""
    from userrep.spaces.consumers import register_consumer

    tables = tables_of(load_config(config_file, overrides or []), writes=True)
    register_consumer(tables, consumer, owner=owner, pin=pin)
    print_result({"consumer": consumer, "owner": owner, "pin": pin}, [_uses(consumer, pin)], as_json=as_json)


@app.command("ready")
def consumers_ready(
    consumer: Consumer,
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Declare that a consumer could move to a space: its model for it is trained."""
    from userrep.spaces.consumers import declare_ready

    declare_ready(tables_of(load_config(config_file, overrides or []), writes=True), consumer, space)
    print_result({"consumer": consumer, "ready_for": space}, [f"{consumer} is ready for {space}"], as_json=as_json)


@app.command("pin")
def consumers_pin(
    consumer: Consumer,
    space: SpaceId,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Pin a consumer to a space, whatever serves; `pin CONSUMER serving` lets it follow what serves again."""
    from userrep.spaces.consumers import pin_consumer

    pin_consumer(tables_of(load_config(config_file, overrides or []), writes=True), consumer, space)
    print_result({"consumer": consumer, "pin": space}, [_uses(consumer, space)], as_json=as_json)


@app.command("remove")
def consumers_remove(
    consumer: Consumer,
    config_file: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take a consumer off the registry; it blocks no promotion and keeps no space in use any more."""
    from userrep.spaces.consumers import remove_consumer

    remove_consumer(tables_of(load_config(config_file, overrides or []), writes=True), consumer)
    print_result({"removed": consumer}, [f"{consumer} is removed"], as_json=as_json)


def _uses(consumer: str, pin: str | None) -> str:
    """Say what a consumer uses after a change."""
    return f"{consumer} " + ("follows the space that serves" if pin in (None, "serving") else f"is pinned to {pin}")

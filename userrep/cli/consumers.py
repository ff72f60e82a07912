"""``userrep consumers``: the registry of downstream models and the spaces they use."""

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
    help="Manage the consumers of embeddings.\n\nA consumer follows the serving space or is pinned to one space.",
    no_args_is_help=True,
)


@app.command("list")
def consumers_list(
    config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all consumers.

    Shows the owner, the space in use, the space it is ready for and the training set of each consumer.
    """
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
    consumers = [vars(c) | {"follows": c.follows, "space_id": c.pinned_space_id or serving} for c in registry.consumers]
    print_result({"consumers": consumers}, in_columns(head, rows) if rows else ["no consumers yet"], as_json=as_json)


@app.command("register")
def consumers_register(
    consumer: Consumer,
    owner: Annotated[str, typer.Option("--owner", help="Team or person responsible for the consumer.")],
    config_file: ConfigFile,
    pin: Annotated[
        str | None,
        typer.Option("--pin", metavar="SPACE", help="Default: follow the serving space.", callback=checked_space_id),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Register a consumer.

    The consumer follows the serving space, or is pinned to one with --pin. Registering it again changes nothing.
    """
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
    """Declare a consumer ready for a space.

    Do this once its model is trained on that space.
    """
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
    """Pin a consumer to a space.

    `pin CONSUMER serving` makes it follow the serving space again.
    """
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
    """Remove a consumer from the registry.

    It no longer blocks promotions or keeps a space in use.
    """
    from userrep.spaces.consumers import remove_consumer

    remove_consumer(tables_of(load_config(config_file, overrides or []), writes=True), consumer)
    print_result({"removed": consumer}, [f"{consumer} is removed"], as_json=as_json)


def _uses(consumer: str, pin: str | None) -> str:
    """Return the line that confirms which space a consumer uses."""
    return f"{consumer} " + ("follows the serving space" if pin in (None, "serving") else f"is pinned to {pin}")

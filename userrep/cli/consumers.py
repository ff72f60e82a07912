"""``userrep consumers``: the registry of downstream models and the spaces they use."""

from typing import Annotated

import typer

from userrep.cli.options import Consumer, Output, SpaceId, command, space_option, tables_of
from userrep.config import Config
from userrep.logs import in_columns

app = typer.Typer(
    help="Manage the consumers of embeddings.\n\nA consumer follows the serving space or is pinned to one space.",
    no_args_is_help=True,
)


@app.command("list")
@command
def consumers_list(config: Config) -> Output:
    """List all consumers.

    Shows the owner, the space in use, the space it is ready for and the training set of each consumer.
    """
    from userrep.spaces.registry import read_registry

    registry = read_registry(tables_of(config))
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
    return Output({"consumers": consumers}, in_columns(head, rows) if rows else ["no consumers yet"])


@app.command("register")
@command
def consumers_register(
    consumer: Consumer,
    owner: Annotated[str, typer.Option(help="Team or person responsible for the consumer.")],
    config: Config,
    pin: Annotated[str | None, space_option("Default: follow the serving space.", "SPACE")] = None,
) -> Output:
    """Register a consumer.

    The consumer follows the serving space, or is pinned to one with --pin. Registering it again with the same owner
    and pin changes nothing. Another owner or pin is refused.
    """
    from userrep.spaces.consumers import register_consumer

    register_consumer(tables_of(config, writes=True), consumer, owner=owner, pin=pin)
    return Output({"consumer": consumer, "owner": owner, "pin": pin}, [_uses(consumer, pin)])


@app.command("ready")
@command
def consumers_ready(consumer: Consumer, space: SpaceId, config: Config) -> Output:
    """Declare a consumer ready for a space.

    Do this once its model is trained on that space.
    """
    from userrep.spaces.consumers import declare_ready

    declare_ready(tables_of(config, writes=True), consumer, space)
    return Output({"consumer": consumer, "ready_for": space}, [f"{consumer} is ready for {space}"])


@app.command("pin")
@command
def consumers_pin(consumer: Consumer, space: SpaceId, config: Config) -> Output:
    """Pin a consumer to a space.

    `pin CONSUMER serving` makes it follow the serving space again.
    """
    from userrep.spaces.consumers import pin_consumer

    pin_consumer(tables_of(config, writes=True), consumer, space)
    return Output({"consumer": consumer, "pin": space}, [_uses(consumer, space)])


@app.command("remove")
@command
def consumers_remove(consumer: Consumer, config: Config) -> Output:
    """Remove a consumer from the registry.

    It no longer blocks promotions or keeps a space in use.
    """
    from userrep.spaces.consumers import remove_consumer

    remove_consumer(tables_of(config, writes=True), consumer)
    return Output({"removed": consumer}, [f"{consumer} is removed"])


def _uses(consumer: str, pin: str | None) -> str:
    """Return the line that confirms which space a consumer uses."""
    return f"{consumer} " + ("follows the serving space" if pin in (None, "serving") else f"is pinned to {pin}")

"""Every change of the registry as a function from one value to the next. No Spark and no clock.

What is stored, and how two changes at once conflict, is registry.py's. Of a change that is not allowed the function
raises; one that changes nothing returns what it got.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from userrep.errors import PromotionRefusedError, UsageError, UserrepError
from userrep.ids import checked_name
from userrep.spaces.registry_value import CANDIDATE, READY, RETIRED, SERVING, Consumer, Registry, Space

_HOW_TO_READY = (
    "A candidate becomes ready when a snapshot of it is published, which `userrep pipeline --retrain` does, "
    "also for one that was cut off."
)


@dataclass(frozen=True)
class Promotion:
    """What a promotion comes to: who moves from ``serving`` (None: nothing serves) to ``space_id``, who is in the way.

    Where nothing serves, nobody is moved from a space that they know, and so nobody is in the way.
    """

    space_id: str
    serving: str | None
    moves: tuple[Consumer, ...]
    blocks: tuple[Consumer, ...]
    pinned: tuple[Consumer, ...]


def add_candidate(registry: Registry, space: Space) -> Registry:
    """Register a trained space.

    Raises
    ------
    UserrepError
        If its id was given to another artifact meanwhile: two trainings ran at once.
    """
    known = next((known for known in registry.spaces if known.space_id == space.space_id), None)
    if known is not None and known.content_hash != space.content_hash:
        raise UserrepError(
            f"space {space.space_id}: another training has registered this id meanwhile; this one is not registered. "
            "Look with `userrep spaces list`; run the command again to train one more."
        )
    if known is not None:
        return registry
    spaces = sorted((*registry.spaces, space), key=lambda space: (space.created_at, space.space_id))
    return replace(registry, spaces=tuple(spaces))


def add_map(registry: Registry, space_id: str, into: str, content_hash: str) -> Registry:
    """Name a space's map into another's coordinates; one that is named already stays."""
    space = registry.space(space_id)
    if into in dict(space.maps):
        return registry
    return _with_spaces(registry, replace(space, maps=tuple(sorted((*space.maps, (into, content_hash))))))


def mark_ready(registry: Registry, space_id: str, *, now: datetime) -> Registry:
    """Say that a candidate's snapshot has passed its gates; another state stays as it is."""
    space = registry.space(space_id)
    if space.state != CANDIDATE:
        return registry
    return _with_spaces(registry, replace(space, state=READY, changed_at=now))


def planned_promotion(registry: Registry, space_id: str) -> Promotion:
    """Look ahead at a promotion.

    Raises
    ------
    UsageError
        If the space is neither ready nor serving.
    """
    space, serving = registry.space(space_id), registry.serving
    if space.state not in (READY, SERVING):
        cure = "`userrep spaces list` shows those that are." if space.state == RETIRED else _HOW_TO_READY
        raise UsageError(f"space {space.space_id} is {space.state}; only a ready space can serve. {cure}")
    moving = [consumer for consumer in registry.consumers if consumer.follows and space is not serving]
    blocks = [consumer for consumer in moving if serving is not None and consumer.ready_for != space.space_id]
    return Promotion(
        space_id=space.space_id,
        serving=serving.space_id if serving else None,
        moves=tuple(consumer for consumer in moving if consumer not in blocks),
        blocks=tuple(blocks),
        pinned=tuple(consumer for consumer in registry.consumers if not consumer.follows),
    )


def promote(registry: Registry, space_id: str, *, now: datetime) -> Registry:
    """Let a ready space serve, and the one that serves step back to ready.

    Raises
    ------
    UsageError
        If the space is neither ready nor serving.
    PromotionRefusedError
        If a consumer that follows is not ready for it; it names each.
    """
    planned = planned_promotion(registry, space_id)
    if planned.blocks:
        num = len(planned.blocks)
        who = "a consumer that follows is" if num == 1 else f"{num} consumers that follow are"
        cures = [
            f"consumer {c.name} (owner {c.owner}): `userrep consumers ready {c.name} {planned.space_id}` "
            f"once its model is trained on it, or `userrep consumers pin {c.name} {planned.serving}` to let it stay."
            for c in planned.blocks
        ]
        head = f"space {planned.space_id} is not promoted: {who} not ready for it; nothing has changed."
        raise PromotionRefusedError("\n".join([head, *cures]))
    return registry if planned.serving == planned.space_id else _let_serve(registry, registry.space(space_id), now)


def rollback(registry: Registry, *, now: datetime) -> Registry:
    """Let the space serve again that served last before the one that serves now. Consumers never block it.

    One that has come through, unknown to who asked for it, is not made again: nothing changes until another promotion,
    or until the space that it has left is retired, after which a rollback leads further back.

    Raises
    ------
    UsageError
        If no other space has served, or each that has is retired.
    """
    if registry.rolled_back_from is not None:
        return registry
    left, back = registry.serving, registry.served_before
    if left is None or back is None:
        raise UsageError("rollback: no other space has served before.")
    after = _let_serve(registry, back, now)
    turn = after.space(back.space_id).last_turn
    return _with_spaces(after, replace(after.space(left.space_id), last_turn=-turn))


def retire(registry: Registry, space_id: str, *, now: datetime) -> Registry:
    """Take a space out of use for good.

    Raises
    ------
    UsageError
        If it is serving, or consumers are pinned to it; it names each.
    """
    space = registry.space(space_id)
    if space.state == RETIRED:
        return registry
    if space.state == SERVING:
        raise UsageError(f"space {space.space_id} is serving; promote another one first, then retire it.")
    if pinned := registry.pinned_to(space.space_id):
        raise UsageError(
            [
                f"space {space.space_id} is not retired: consumer {c.name} (owner {c.owner}) is pinned to it; "
                f"`userrep consumers pin {c.name} serving` lets it follow."
                for c in pinned
            ]
        )
    return _with_spaces(registry, replace(space, state=RETIRED, changed_at=now))


def register(registry: Registry, name: str, *, owner: str, pin: str | None, now: datetime) -> Registry:
    """Register a consumer, which follows "serving" if it isn't pinned; once: its owner may repeat it.

    Raises
    ------
    UsageError
        If the name belongs to another owner, or is registered with another pin; if the owner isn't one short line; if
        the space to pin is unknown, a candidate or retired.
    """
    checked_name(name, "consumer")
    if not owner.strip() or len(owner) > 100 or not owner.isprintable():
        raise UsageError(f"owner {owner[:20]!r}: name a team or a person, in one line of at most 100 characters.")
    wanted = None if pin in (None, SERVING) else _with_snapshots(registry, pin).space_id
    known = next((consumer for consumer in registry.consumers if consumer.name == name), None)
    if known is None:
        new = Consumer(name, owner, registered_at=now, last_seen_at=now, pinned_space_id=wanted)
        return _with_consumers(registry, new)
    if known.owner != owner:
        raise UsageError(f"consumer {name} belongs to {known.owner}; choose another name, or ask them to remove it.")
    if pin is not None and known.pinned_space_id != wanted:
        raise UsageError(
            f"consumer {name} is registered already; `userrep consumers pin {name} {pin}` changes its space."
        )
    return registry


def declare_ready(registry: Registry, name: str, space_id: str, *, now: datetime) -> Registry:
    """Say that a consumer could move to a space.

    A declaration for the space that serves does not take back an earlier one for a space that is ready to.

    Raises
    ------
    UsageError
        If there is no such consumer or space, or the space is a candidate or retired.
    """
    consumer, space = registry.consumer(name), _with_snapshots(registry, space_id)
    waiting = {known.space_id for known in registry.spaces if known.state == READY}
    if consumer.ready_for == space.space_id or (space.state == SERVING and consumer.ready_for in waiting):
        return registry
    return _with_consumers(registry, replace(consumer, ready_for=space.space_id, last_seen_at=now))


def pin(registry: Registry, name: str, space_id: str, *, now: datetime) -> Registry:
    """Pin a consumer to a space, or let it follow again with "serving".

    Raises
    ------
    UsageError
        If there is no such consumer or space, or the space is a candidate or retired.
    """
    consumer = registry.consumer(name)
    wanted = None if space_id == SERVING else _with_snapshots(registry, space_id).space_id
    if consumer.pinned_space_id == wanted:
        return registry
    return _with_consumers(registry, replace(consumer, pinned_space_id=wanted, last_seen_at=now))


def record_training_set(
    registry: Registry, name: str, *, training_set_id: str, snapshot_ids: Sequence[str], now: datetime
) -> Registry:
    """Say what a consumer has last been trained on. Raises UsageError if there is no such consumer."""
    consumer = registry.consumer(name)
    trained = replace(consumer, training_set_id=training_set_id, snapshot_ids=tuple(snapshot_ids), last_seen_at=now)
    return _with_consumers(registry, trained)


def remove(registry: Registry, name: str) -> Registry:
    """Take a consumer off the registry. Raises UsageError if there is no such consumer."""
    gone = registry.consumer(name)
    return replace(registry, consumers=tuple(consumer for consumer in registry.consumers if consumer is not gone))


def _with_snapshots(registry: Registry, space_id: str | None) -> Space:
    """Return a space that consumers may use."""
    space = registry.space(space_id)
    if space.state == RETIRED:
        usable = ", ".join(known.space_id for known in registry.spaces if known.state in (READY, SERVING)) or "none"
        raise UsageError(f"space {space.space_id} is retired; spaces that can be used: {usable}.")
    if space.state == CANDIDATE:
        raise UsageError(f"space {space.space_id} is candidate: it has no snapshot to use yet. {_HOW_TO_READY}")
    return space


def _let_serve(registry: Registry, space: Space, now: datetime) -> Registry:
    turn = 1 + max(known.last_turn for known in registry.spaces)
    changed = [replace(space, state=SERVING, changed_at=now, last_turn=turn)]
    changed += [replace(registry.serving, state=READY, changed_at=now)] if registry.serving else []
    return _with_spaces(registry, *changed)


def _with_spaces(registry: Registry, *changed: Space) -> Registry:
    by_id = {space.space_id: space for space in changed}
    return replace(registry, spaces=tuple(by_id.get(space.space_id, space) for space in registry.spaces))


def _with_consumers(registry: Registry, changed: Consumer) -> Registry:
    others = [consumer for consumer in registry.consumers if consumer.name != changed.name]
    return replace(registry, consumers=tuple(sorted((*others, changed), key=lambda consumer: consumer.name)))

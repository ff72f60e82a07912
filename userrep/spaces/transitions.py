"""Changes of the registry as pure functions from one registry value to the next. No Spark and no clock.

A function raises if the change is not allowed, and returns its input if there is nothing to change. Storage and
concurrent changes are handled in registry.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from userrep.errors import PromotionRefusedError, UsageError, UserrepError
from userrep.ids import checked_name
from userrep.spaces.registry_state import CANDIDATE, READY, RETIRED, SERVING, Consumer, Registry, Space

_HOW_TO_READY = (
    "A candidate becomes ready when its first snapshot is published. "
    "`userrep pipeline --retrain` publishes it, also after an interrupted run."
)


@dataclass(frozen=True)
class Promotion:
    """Effect of promoting ``space_id``. ``serving``: the space that serves now, or None.

    ``moves``: followers that move to the promoted space. ``blocks``: followers that are not ready for it and so block
    the promotion; none if no space is serving, because followers then leave no space behind. ``pinned``: consumers that
    stay where they are.
    """

    space_id: str
    serving: str | None
    moves: tuple[Consumer, ...]
    blocks: tuple[Consumer, ...]
    pinned: tuple[Consumer, ...]


def add_candidate(
    registry: Registry, *, space_id: str, lineage_id: str, trained_until: date, content_hash: str
) -> Registry:
    """Register a trained space. Registering the same artifact again changes nothing.

    Raises UserrepError if a concurrent training has registered the id with another artifact.
    """
    now = registry.read_at
    new = Space(checked_name(space_id, "space"), CANDIDATE, lineage_id, trained_until, content_hash, now, now)
    known = next((space for space in registry.spaces if space.space_id == space_id), None)
    if known is not None and known.content_hash != content_hash:
        raise UserrepError(
            f"space {space_id}: not registered, because a concurrent training has registered another artifact under "
            "this id. Check `userrep spaces list`, and run the command again to train one more space."
        )
    return registry if known else registry.with_changed(new)


def add_map(registry: Registry, space: Space | str, into: Space | str, content_hash: str) -> Registry:
    """Name the map of a space into an earlier space's coordinates. A map that is named already is kept."""
    space, into_id = registry.space(space), registry.space(into).space_id
    if into_id in dict(space.maps):
        return registry
    return registry.with_changed(replace(space, maps=tuple(sorted((*space.maps, (into_id, content_hash))))))


def mark_ready(registry: Registry, space: Space | str) -> Registry:
    """Make a candidate ready, after a snapshot of it has passed its gates. Other states stay as they are."""
    space = registry.space(space)
    if space.state != CANDIDATE:
        return registry
    return registry.with_changed(replace(space, state=READY, changed_at=registry.read_at))


def planned_promotion(registry: Registry, space: Space | str) -> Promotion:
    """Return the effect that a promotion would have. Raises UsageError if the space is neither ready nor serving."""
    space, serving = registry.space(space), registry.serving
    if space.state not in (READY, SERVING):
        cure = "`userrep spaces list` shows which spaces are ready." if space.state == RETIRED else _HOW_TO_READY
        raise UsageError(f"space {space.space_id} is {space.state}; only a ready space can serve. {cure}")
    followers = [consumer for consumer in registry.consumers if consumer.follows and space is not serving]
    blocks = [consumer for consumer in followers if serving is not None and consumer.ready_for != space.space_id]
    return Promotion(
        space_id=space.space_id,
        serving=serving.space_id if serving else None,
        moves=tuple(consumer for consumer in followers if consumer not in blocks),
        blocks=tuple(blocks),
        pinned=tuple(consumer for consumer in registry.consumers if not consumer.follows),
    )


def promote(registry: Registry, space: Space | str) -> Registry:
    """Make a ready space the serving one, and the serving space ready.

    Raises
    ------
    UsageError
        If the space is neither ready nor serving.
    PromotionRefusedError
        If consumers that follow "serving" are not ready for the space; the error names them.
    """
    planned = planned_promotion(registry, space)
    if planned.blocks:
        num = len(planned.blocks)
        subject = "a consumer that follows is" if num == 1 else f"{num} consumers that follow are"
        cures = [
            f"consumer {c.name} (owner {c.owner}): run `userrep consumers ready {c.name} {planned.space_id}` once its "
            f"model is trained on that space, or `userrep consumers pin {c.name} {planned.serving}` to let it stay."
            for c in planned.blocks
        ]
        summary = f"space {planned.space_id} is not promoted: {subject} not ready for it. Nothing has changed."
        raise PromotionRefusedError("\n".join([summary, *cures]))
    return registry if planned.serving == planned.space_id else _with_serving(registry, registry.space(space))


def rollback(registry: Registry) -> Registry:
    """Make the previously serving space serve again. Consumers never block this.

    A rollback can be repeated safely, for example if the answer to the first one was lost: further rollbacks change
    nothing until another space is promoted. Once the rolled-back space is retired, a rollback goes one space further
    back. Raises UsageError if no other space has served before, or all that have are retired.
    """
    if registry.rolled_back_from is not None:
        return registry
    serving, previous = registry.serving, registry.served_before
    if serving is None or previous is None:
        raise UsageError("rollback: no other space has served before.")
    after = _with_serving(registry, previous)
    promotion = after.space(previous.space_id).last_turn
    return after.with_changed(replace(after.space(serving.space_id), last_turn=-promotion))


def retire(registry: Registry, space: Space | str) -> Registry:
    """Retire a space permanently. Its tables are kept.

    Raises UsageError if it is serving, or consumers are pinned to it; names them.
    """
    space = registry.space(space)
    if space.state == RETIRED:
        return registry
    if space.state == SERVING:
        raise UsageError(f"space {space.space_id} is serving. Promote another space first, then retire it.")
    if pinned := registry.pinned_to(space.space_id):
        raise UsageError(
            [
                f"space {space.space_id} is not retired: consumer {c.name} (owner {c.owner}) is pinned to it. "
                f"Remove the pin with `userrep consumers pin {c.name} serving`."
                for c in pinned
            ]
        )
    return registry.with_changed(replace(space, state=RETIRED, changed_at=registry.read_at))


def register(registry: Registry, name: str, *, owner: str, pin: str | None = None) -> Registry:
    """Register a consumer, which follows "serving" unless it is pinned to a space.

    Registering it again with the same owner and pin changes nothing.

    Raises
    ------
    UsageError
        If the name is registered with another owner or pin, the owner is not one line of 1 to 100 characters, or the
        space to pin is unknown, a candidate or retired.
    """
    checked_name(name, "consumer")
    if not isinstance(owner, str) or not owner.strip() or len(owner) > 100 or not owner.isprintable():
        raise UsageError(f"owner {str(owner)[:20]!r}: name a team or a person, in one line of at most 100 characters.")
    pinned_space_id = None if pin in (None, SERVING) else _usable_space(registry, pin).space_id
    known = next((consumer for consumer in registry.consumers if consumer.name == name), None)
    if known is None:
        now = registry.read_at
        return registry.with_changed(Consumer(name, owner, now, now, pinned_space_id=pinned_space_id))
    if known.owner != owner:
        raise UsageError(
            f"consumer {name} belongs to {known.owner}. Choose another name, or ask its owner to remove it."
        )
    if pin is not None and known.pinned_space_id != pinned_space_id:
        raise UsageError(
            f"consumer {name} is already registered. Change its space with `userrep consumers pin {name} {pin}`."
        )
    return registry


def declare_ready(registry: Registry, name: str, space_id: str) -> Registry:
    """Record that a consumer has trained its model on a space and can move to it.

    A declaration for the serving space does not replace an earlier one for a ready space. Raises UsageError if the
    consumer or the space is unknown, or the space is a candidate or retired.
    """
    consumer, space = registry.consumer(name), _usable_space(registry, space_id)
    ready_ids = {known.space_id for known in registry.spaces if known.state == READY}
    if consumer.ready_for == space.space_id or (space.state == SERVING and consumer.ready_for in ready_ids):
        return registry
    return registry.with_changed(replace(consumer, ready_for=space.space_id, last_seen_at=registry.read_at))


def pin(registry: Registry, name: str, space_id: str) -> Registry:
    """Pin a consumer to a space. The space id "serving" removes the pin.

    Raises UsageError if the consumer or the space is unknown, or the space is a candidate or retired.
    """
    consumer = registry.consumer(name)
    pinned_space_id = None if space_id == SERVING else _usable_space(registry, space_id).space_id
    if consumer.pinned_space_id == pinned_space_id:
        return registry
    return registry.with_changed(replace(consumer, pinned_space_id=pinned_space_id, last_seen_at=registry.read_at))


def record_training_set(
    registry: Registry, name: str, *, training_set_id: str, snapshot_ids: Sequence[str]
) -> Registry:
    """Record the training set that a consumer was last trained on. Raises UsageError if it is not registered."""
    consumer = registry.consumer(name)
    ids, now = tuple(snapshot_ids), registry.read_at
    return registry.with_changed(replace(consumer, training_set_id=training_set_id, snapshot_ids=ids, last_seen_at=now))


def remove(registry: Registry, name: str) -> Registry:
    """Remove a consumer. Raises UsageError if it is not registered."""
    removed = registry.consumer(name)
    return replace(registry, consumers=tuple(consumer for consumer in registry.consumers if consumer is not removed))


def _usable_space(registry: Registry, space_id: str | None) -> Space:
    """Return a space that consumers can use. Raises UsageError if it is unknown, a candidate or retired."""
    space = registry.space(space_id)
    if space.state == RETIRED:
        usable = ", ".join(known.space_id for known in registry.spaces if known.state in (READY, SERVING)) or "none"
        raise UsageError(f"space {space.space_id} is retired. Spaces that can be used: {usable}.")
    if space.state == CANDIDATE:
        raise UsageError(f"space {space.space_id} is a candidate without a published snapshot. {_HOW_TO_READY}")
    return space


def _with_serving(registry: Registry, space: Space) -> Registry:
    now, promotion = registry.read_at, 1 + max(known.last_turn for known in registry.spaces)
    before = [replace(registry.serving, state=READY, changed_at=now)] if registry.serving else []
    return registry.with_changed(*before, replace(space, state=SERVING, changed_at=now, last_turn=promotion))

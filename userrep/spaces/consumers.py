"""Registered consumers: the space that each one uses, is pinned to, and is ready to move to."""

from collections.abc import Sequence

from userrep.spaces import transitions
from userrep.spaces.registry import change_registry
from userrep.store.tables import Tables
from userrep.utc import utc_now


def register_consumer(tables: Tables, name: str, *, owner: str, pin: str | None = None) -> None:
    """Register a consumer, which follows "serving" unless it is pinned to a space.

    Registering it again with the same owner and pin changes nothing.

    Raises
    ------
    UsageError
        If the name is registered with another owner or pin, or the space to pin is unknown, a candidate or retired.
    """
    change_registry(tables, lambda registry: transitions.register(registry, name, owner=owner, pin=pin, now=utc_now()))


def declare_ready(tables: Tables, name: str, space_id: str) -> None:
    """Record that a consumer has trained its model on a space and can move to it.

    Raises
    ------
    UsageError
        If the consumer or the space is unknown, or the space is a candidate or retired.
    """
    change_registry(tables, lambda registry: transitions.declare_ready(registry, name, space_id, now=utc_now()))


def pin_consumer(tables: Tables, name: str, space_id: str) -> None:
    """Pin a consumer to a space. The space id "serving" removes the pin.

    Raises
    ------
    UsageError
        If the consumer or the space is unknown, or the space is a candidate or retired.
    """
    change_registry(tables, lambda registry: transitions.pin(registry, name, space_id, now=utc_now()))


def record_training_set(tables: Tables, consumer: str, *, training_set_id: str, snapshot_ids: Sequence[str]) -> None:
    """Record the training set that a consumer was last trained on. Raises UsageError if it is not registered."""
    change_registry(
        tables,
        lambda registry: transitions.record_training_set(
            registry, consumer, training_set_id=training_set_id, snapshot_ids=snapshot_ids, now=utc_now()
        ),
    )


def remove_consumer(tables: Tables, name: str) -> None:
    """Remove a consumer from the registry. Raises UsageError if it is not registered."""
    change_registry(tables, lambda registry: transitions.remove(registry, name))

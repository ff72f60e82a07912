"""The registry of consumers: who trains on which space, and whether they are ready for the next."""

from collections.abc import Sequence

from userrep.spaces import transitions
from userrep.spaces.registry import change_registry, read_registry
from userrep.spaces.registry_value import Consumer, Space
from userrep.store.tables import Tables
from userrep.utc import utc_now


def find_consumer(tables: Tables, name: str) -> Consumer:
    """Return a consumer. Raises UsageError if there is none of this name."""
    return read_registry(tables).consumer(name)


def space_of_consumer(tables: Tables, name: str) -> Space:
    """Return the space that a consumer uses now: the pinned one, else the one that serves.

    Raises
    ------
    UsageError
        If there is no such consumer, or it follows and no space serves.
    """
    registry = read_registry(tables)
    return registry.space_of(registry.consumer(name))


def register_consumer(tables: Tables, name: str, *, owner: str, pin: str | None = None) -> None:
    """Register a consumer, which follows "serving" unless it is pinned to a space; its owner may repeat it.

    Raises
    ------
    UsageError
        If the name belongs to another owner or has another pin; if there is no such space, or none to be used.
    """
    change_registry(tables, lambda known: transitions.register(known, name, owner=owner, pin=pin, now=utc_now()))


def declare_ready(tables: Tables, name: str, space_id: str) -> None:
    """Say that a consumer could move to a space: its model for it is trained.

    Raises
    ------
    UsageError
        If there is no such consumer or space, or the space is a candidate or retired.
    """
    change_registry(tables, lambda known: transitions.declare_ready(known, name, space_id, now=utc_now()))


def pin_consumer(tables: Tables, name: str, space_id: str) -> None:
    """Pin a consumer to a space, or let it follow again with "serving".

    Raises
    ------
    UsageError
        If there is no such consumer or space, or the space is a candidate or retired.
    """
    change_registry(tables, lambda known: transitions.pin(known, name, space_id, now=utc_now()))


def record_training_set(tables: Tables, consumer: str, *, training_set_id: str, snapshot_ids: Sequence[str]) -> None:
    """Say what a consumer has last been trained on. Raises UsageError if there is none of this name."""
    change_registry(
        tables,
        lambda known: transitions.record_training_set(
            known, consumer, training_set_id=training_set_id, snapshot_ids=snapshot_ids, now=utc_now()
        ),
    )


def remove_consumer(tables: Tables, name: str) -> None:
    """Take a consumer off the registry. Raises UsageError if there is none of this name."""
    change_registry(tables, lambda known: transitions.remove(known, name))

"""The registry of spaces, as it is stored: read whole, changed by a pure function, written back in one commit."""

from collections.abc import Callable
from dataclasses import fields
from datetime import date
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UserrepError
from userrep.ids import checked_name
from userrep.spaces import transitions
from userrep.spaces.registry_value import CANDIDATE, READY, RETIRED, SERVING, Consumer, Registry, Space
from userrep.store.schemas import REGISTRY
from userrep.store.storage import artifacts_root
from userrep.store.tables import Tables
from userrep.utc import utc_now

__all__ = ["CANDIDATE", "READY", "RETIRED", "SERVING", "Space"]  # the words of the trade go with it

_ATTEMPTS = 50  # of a change, each on the newest registry; of those that come at once, each round lets one through


def read_registry(tables: Tables) -> Registry:
    """Read all spaces and consumers. Cost: milliseconds where files may be read beside Spark."""
    return _look(tables)[0]


def change_registry(
    tables: Tables, transition: Callable[[Registry], Registry], *, only_if_spaces_are_as_seen: bool = False
) -> Registry:
    """Change the registry in one commit, by a function of what it holds; return what it holds then.

    Where another change comes first, the function is asked again, with what there is now: a change of one consumer does
    not fail for that of another. ``only_if_spaces_are_as_seen``: give up if the other change was of a space. Nothing is
    written where the function changes nothing, or raises.

    Raises
    ------
    UserrepError
        If another change of a space came first, or others keep coming.
    """
    seen = None
    for _ in range(_ATTEMPTS):
        before, change_id = _look(tables)
        if only_if_spaces_are_as_seen and seen not in (None, before.spaces):
            break
        seen = before.spaces
        after = transition(before)
        if after == before or tables.exchange(REGISTRY, _rows(after), since=change_id):
            return after
    raise UserrepError(
        "spaces: another change of the registry came first; look with `userrep spaces list` and try again."
    )


def list_spaces(tables: Tables) -> list[Space]:
    """Return all spaces, oldest first."""
    return list(read_registry(tables).spaces)


def find_space(tables: Tables, space_id: str | None) -> Space:
    """Return a space by id, also a retired one; the one that serves for None or "serving".

    Raises
    ------
    UsageError
        If there is no such space, or none serves.
    """
    return read_registry(tables).space(space_id)


def artifact_folder(config: Config, space: Space) -> str:
    """Return the folder of a space's artifact. It is named by the content hash, so no run overwrites another's."""
    return f"{artifacts_root(config)}/{space.artifact}"


def add_candidate(tables: Tables, *, space_id: str, lineage_id: str, trained_until: date, content_hash: str) -> None:
    """Register a trained space. A second call with the same artifact changes nothing.

    Raises
    ------
    UserrepError
        If the id was given to another artifact: two trainings ran at once.
    """
    now = utc_now()
    space = Space(
        space_id=checked_name(space_id, "space"),
        state=CANDIDATE,
        lineage_id=lineage_id,
        trained_until=trained_until,
        content_hash=content_hash,
        created_at=now,
        changed_at=now,
    )
    change_registry(tables, lambda registry: transitions.add_candidate(registry, space))


def add_map(tables: Tables, space: Space, into: Space, content_hash: str) -> Space:
    """Name the map of a space into an earlier one's coordinates, unless one is named already; return the space then."""
    after = change_registry(
        tables, lambda registry: transitions.add_map(registry, space.space_id, into.space_id, content_hash)
    )
    return after.space(space.space_id)


def mark_ready(tables: Tables, space: Space) -> None:
    """Say that a candidate's snapshot has passed its gates."""
    change_registry(tables, lambda registry: transitions.mark_ready(registry, space.space_id, now=utc_now()))


def promote(tables: Tables, space: Space) -> None:
    """Let a ready space serve, and the one that serves step back to ready: one commit.

    Raises
    ------
    UsageError
        If the space is not ready.
    PromotionRefusedError
        If a consumer that follows is not ready for it; it names each.
    UserrepError
        If another change of a space came in between.
    """
    change_registry(
        tables,
        lambda registry: transitions.promote(registry, space.space_id, now=utc_now()),
        only_if_spaces_are_as_seen=True,
    )


def rollback(tables: Tables) -> Space:
    """Let the space serve again that served last before the one that serves now. Never blocked by consumers.

    Run again it changes nothing, until another space is promoted or the one that it has left is retired.

    Raises
    ------
    UsageError
        If no other space has served, or each that has is retired.
    UserrepError
        If another change of a space came in between.
    """
    after = change_registry(
        tables, lambda registry: transitions.rollback(registry, now=utc_now()), only_if_spaces_are_as_seen=True
    )
    return after.space(None)


def retire(tables: Tables, space: Space) -> None:
    """Take a space out of use for good; its tables stay.

    Raises
    ------
    UsageError
        If it is serving, or consumers are pinned to it.
    UserrepError
        If another change of a space came in between.
    """
    change_registry(
        tables,
        lambda registry: transitions.retire(registry, space.space_id, now=utc_now()),
        only_if_spaces_are_as_seen=True,
    )


def _look(tables: Tables) -> tuple[Registry, str | None]:
    """Read the registry, and the id of the change that made it (None: it is empty)."""
    rows = tables.ledger(REGISTRY)
    spaces = [
        Space(
            space_id=row["name"],
            maps=tuple(sorted(dict(row.maps or ()).items())),
            **_of(row, Space, "space_id", "maps"),
        )
        for row in rows
        if row.kind == "space"
    ]
    consumers = [
        Consumer(
            name=row["name"], snapshot_ids=tuple(row.snapshot_ids or ()), **_of(row, Consumer, "name", "snapshot_ids")
        )
        for row in rows
        if row.kind == "consumer"
    ]
    spaces.sort(key=lambda space: (space.created_at, space.space_id))
    consumers.sort(key=lambda consumer: consumer.name)
    return Registry(tuple(spaces), tuple(consumers)), max((row.change_id for row in rows), default=None)


def _of(row: Row, kind: type[Space] | type[Consumer], *but: str) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(kind) if field.name not in but}


def _rows(registry: Registry) -> list[dict[str, Any]]:
    spaces = [
        {"kind": "space", "name": space.space_id} | vars(space) | {"maps": dict(space.maps)}
        for space in registry.spaces
    ]
    return [{name: value for name, value in row.items() if name != "space_id"} for row in spaces] + [
        {"kind": "consumer"} | vars(consumer) | {"snapshot_ids": list(consumer.snapshot_ids)}
        for consumer in registry.consumers
    ]

"""The stored registry of spaces and consumers: read whole, changed by a pure function, written in one commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.ids import checked_name, short_hash
from userrep.items.versions import lineage_of
from userrep.spaces import transitions
from userrep.spaces.registry_state import CANDIDATE, READY, RETIRED, SERVING, Consumer, Registry, Space
from userrep.store.schemas import REGISTRY
from userrep.store.tables import Tables
from userrep.utc import utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

__all__ = ["CANDIDATE", "READY", "RETIRED", "SERVING", "Space"]  # re-exported

_T = TypeVar("_T", Space, Consumer)


def read_registry(tables: Tables) -> Registry:
    """Read all spaces and consumers. Cost: milliseconds where table files can be read without Spark."""
    return _registry(tables.ledger(REGISTRY))


def change_registry(
    tables: Tables, transition: Callable[[Registry], Registry], *, require_same_spaces: bool = False
) -> Registry:
    """Apply a transition to the registry in one commit, and return the registry after it.

    If another change is committed first, the transition is applied again to the new registry, so that changes of
    different consumers do not conflict. ``require_same_spaces``: give up if the other change affected a space. Nothing
    is written if the transition raises or changes nothing.

    Raises
    ------
    UserrepError
        If another change affected a space and ``require_same_spaces`` is set, or if all attempts lost to other changes.
    """
    first: Registry | None = None  # before the first attempt
    after = Registry()  # after the last one

    def changed(rows: list[Row]) -> list[dict[str, Any]] | None:
        nonlocal first, after
        before = _registry(rows)
        first = first or before
        if require_same_spaces and before.spaces != first.spaces:
            raise UserrepError(
                "spaces: not changed, because another change of the registry came first. "
                "Check with `userrep spaces list`, and run the command again."
            )
        after = transition(before)
        return None if after == before else _rows(after)

    tables.change(
        REGISTRY, changed, subject="spaces and consumers", check="`userrep spaces list` and `userrep consumers list`"
    )
    return after


def list_spaces(tables: Tables) -> list[Space]:
    """Return all spaces, oldest first."""
    return list(read_registry(tables).spaces)


def find_space(tables: Tables, space_id: str | None) -> Space:
    """Return a space by id, including retired ones. None and "serving" return the serving space.

    Raises
    ------
    UsageError
        If the space is unknown, or no space is serving.
    """
    return read_registry(tables).space(space_id)


def next_space_id(tables: Tables, config: Config, until: date) -> str:
    """Return the id that a training started now would get: a running number and a hash of the training recipe."""
    number = 1 + len(list_spaces(tables))
    return f"s{number:03d}-{_recipe_hash(config, until)}"


def is_trained_so(space: Space, config: Config, until: date) -> bool:
    """Return whether a space was trained with this model, these training settings and the same ``until`` date."""
    return space.space_id.endswith(f"-{_recipe_hash(config, until)}")


def _recipe_hash(config: Config, until: date) -> str:
    return short_hash([config.model.model_dump(), config.training.recipe, until], 6)


def artifact_folder(tables: Tables, space: Space) -> str:
    """Return the folder of a space's artifact. The content hash in its name keeps runs from overwriting each other."""
    return f"{tables.artifacts_root}/{space.artifact}"


def check_lineage(space: Space, config: Config) -> None:
    """Raise UsageError if a space has another lineage than a configuration."""
    lineage_id = lineage_of(config)
    if space.lineage_id != lineage_id:
        raise UsageError(
            f"space {space.space_id} has lineage {space.lineage_id}, but this configuration has {lineage_id}: "
            "its columns, windows or item vectors differ. Use the configuration the space was trained with."
        )


def add_candidate(tables: Tables, *, space_id: str, lineage_id: str, trained_until: date, content_hash: str) -> None:
    """Register a trained space as a candidate. A second call with the same artifact changes nothing.

    Raises
    ------
    UserrepError
        If a concurrent training has registered the id with another artifact.
    """
    now = utc_now()
    space = Space(
        checked_name(space_id, "space"),
        CANDIDATE,
        lineage_id,
        trained_until,
        content_hash,
        created_at=now,
        changed_at=now,
    )
    change_registry(tables, lambda registry: transitions.add_candidate(registry, space))


def add_map(tables: Tables, space: Space, into: Space, content_hash: str) -> Space:
    """Name the map of a space into an earlier space's coordinates, unless one is named already; return the space."""
    after = change_registry(
        tables, lambda registry: transitions.add_map(registry, space.space_id, into.space_id, content_hash)
    )
    return after.space(space.space_id)


def mark_ready(tables: Tables, space: Space) -> None:
    """Make a candidate ready, after a snapshot of it has passed its gates. Other states stay as they are."""
    change_registry(tables, lambda registry: transitions.mark_ready(registry, space.space_id, now=utc_now()))


def promote(tables: Tables, space: Space) -> None:
    """Make a ready space the serving one, and the serving space ready, in one commit.

    Raises
    ------
    UsageError
        If the space is neither ready nor serving.
    PromotionRefusedError
        If consumers that follow "serving" are not ready for the space; the error names them.
    UserrepError
        If a concurrent change affected a space.
    """
    change_registry(
        tables, lambda registry: transitions.promote(registry, space.space_id, now=utc_now()), require_same_spaces=True
    )


def rollback(tables: Tables) -> Space:
    """Make the previously serving space serve again, and return it. Consumers never block this.

    Further rollbacks change nothing until another space is promoted, or until the space that was rolled back is
    retired.

    Raises
    ------
    UsageError
        If no other space has served before, or all that have are retired.
    UserrepError
        If a concurrent change affected a space.
    """
    after = change_registry(
        tables, lambda registry: transitions.rollback(registry, now=utc_now()), require_same_spaces=True
    )
    return after.space(None)


def retire(tables: Tables, space: Space) -> None:
    """Retire a space permanently. Its tables are kept.

    Raises
    ------
    UsageError
        If the space is serving, or consumers are pinned to it.
    UserrepError
        If a concurrent change affected a space.
    """
    change_registry(
        tables, lambda registry: transitions.retire(registry, space.space_id, now=utc_now()), require_same_spaces=True
    )


def _registry(rows: list[Row]) -> Registry:
    """Return the registry that is stored in the rows of the table."""
    spaces = (_value(Space, row) for row in rows if row.kind == "space")
    consumers = (_value(Consumer, row) for row in rows if row.kind == "consumer")
    return Registry.of(spaces, consumers)


def _value(kind: type[_T], row: Row) -> _T:
    values = row.asDict() | {
        "space_id": row["name"],
        "maps": tuple(sorted(dict(row.maps or ()).items())),
        "snapshot_ids": tuple(row.snapshot_ids or ()),
    }
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _rows(registry: Registry) -> list[dict[str, Any]]:
    spaces = [
        vars(space) | {"kind": "space", "name": space.space_id, "maps": dict(space.maps)} for space in registry.spaces
    ]
    consumers = [vars(c) | {"kind": "consumer", "snapshot_ids": list(c.snapshot_ids)} for c in registry.consumers]
    return spaces + consumers

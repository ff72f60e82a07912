"""The stored registry of spaces and consumers: read whole, changed by a pure function, written in one commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import date
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.ids import short_hash
from userrep.items.versions import lineage_of
from userrep.spaces import transitions
from userrep.spaces.registry_state import CANDIDATE, READY, RETIRED, SERVING, Consumer, Registry, Space, artifact_path
from userrep.store.schemas import REGISTRY
from userrep.store.tables import Tables
from userrep.utc import utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

__all__ = ["CANDIDATE", "READY", "RETIRED", "SERVING", "Space"]  # re-exported

_T = TypeVar("_T", Space, Consumer)
_P = ParamSpec("_P")


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
    return f"{tables.artifacts_root}/{artifact_path(space.space_id, space.content_hash)}"


def check_lineage(space: Space, config: Config) -> None:
    """Raise UsageError if a space has another lineage than a configuration."""
    lineage_id = lineage_of(config)
    if space.lineage_id != lineage_id:
        raise UsageError(
            f"space {space.space_id} has lineage {space.lineage_id}, but this configuration has {lineage_id}: "
            "its columns, windows or item vectors differ. Use the configuration the space was trained with."
        )


def stored(
    transition: Callable[Concatenate[Registry, _P], Registry], *, require_same_spaces: bool = False
) -> Callable[Concatenate[Tables, _P], Registry]:
    """Return a transition as a change of the stored registry, which takes tables instead of a registry.

    It also raises the errors of ``change_registry``.
    """

    @wraps(transition)
    def change(tables: Tables, /, *args: _P.args, **more: _P.kwargs) -> Registry:
        return change_registry(
            tables, lambda registry: transition(registry, *args, **more), require_same_spaces=require_same_spaces
        )

    return change


add_candidate = stored(transitions.add_candidate)
add_map = stored(transitions.add_map)
mark_ready = stored(transitions.mark_ready)
promote = stored(transitions.promote, require_same_spaces=True)
retire = stored(transitions.retire, require_same_spaces=True)


def rollback(tables: Tables) -> Space:
    """Make the previously serving space serve again, and return it; see ``transitions.rollback``."""
    return change_registry(tables, transitions.rollback, require_same_spaces=True).space(None)


def _registry(rows: list[Row]) -> Registry:
    """Return the registry that is stored in the rows of the table."""
    spaces = (_value(Space, row) for row in rows if row.kind == "space")
    consumers = (_value(Consumer, row) for row in rows if row.kind == "consumer")
    return Registry(read_at=utc_now()).with_changed(*spaces, *consumers)


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

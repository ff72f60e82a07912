"""Versions of the item vectors by date: a version valid from V is fitted only on events before V.

Versions of a lineage are ``refit_days`` apart. The first version of a lineage anchors the grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from userrep.config import Config
from userrep.errors import UsageError, shortened
from userrep.ids import short_hash
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, ITEM_VECTORS
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame


def lineage_of(config: Config) -> str:
    """Return the id of everything besides data that features depend on: column mapping, windows, item-vector settings.

    ``max_tiles`` is not included: a version fitted on other users is still rotated onto the axes of the previous one.
    """
    parts = {
        "events": config.events.meaning,
        "items": config.items.columns.model_dump() if config.items else None,
        "users": config.users.meaning if config.users else None,
        "onboarding": config.onboarding.meaning if config.onboarding else None,
        "windows_days": config.windows_days,
        **({"history_days": config.history_window} if config.history_window else {}),  # unset: keep older lineage ids
        "item_vectors": {
            name: vectors.model_dump(exclude={"max_tiles"}) for name, vectors in config.item_vectors.items()
        },
    }
    return f"l{short_hash(parts, 9)}"


class Versions(NamedTuple):
    """The grid of a lineage's versions, one of which is ``anchor``, and the versions that exist."""

    lineage_id: str
    anchor: date
    refit_days: int
    present: frozenset[date]

    def valid_at(self, as_of: date) -> date:
        """Return the newest version date at or before ``as_of``."""
        return self.anchor + timedelta(days=(as_of - self.anchor).days // self.refit_days * self.refit_days)

    def missing(self, as_ofs: Iterable[date]) -> list[date]:
        """Return, in order, the versions that these as-of dates need but that do not exist yet."""
        return sorted({self.valid_at(as_of) for as_of in as_ofs} - self.present)

    def check_built(self, as_ofs: Iterable[date]) -> None:
        """Raise UsageError if a version that these as-of dates need does not exist: their pooled vectors would be 0."""
        if missing := self.missing(as_ofs):
            raise UsageError(
                f"item vectors valid from {shortened(missing)} are not built, but features need them. Run "
                "`userrep run train_item_vectors` first, with the same options."
            )


def versions_of(tables: Tables, config: Config, *, anchor: date) -> Versions:
    """Read a lineage's versions; without any, the grid is anchored at ``anchor``."""
    lineage_id = lineage_of(config)
    present = frozenset(version_records(tables, lineage_id))
    return Versions(lineage_id, min(present, default=anchor), config.refit_days, present)


def read_vectors(tables: Tables, lineage_id: str, version: date) -> DataFrame:
    """Read the vectors of a version: one row per modality and item."""
    return tables.read(ITEM_VECTORS, [{"lineage_id": lineage_id, "valid_from": version}])


def items_without_vector(tables: Tables, lineage_id: str, version: date) -> dict[str, int]:
    """Return, per modality, the number of items known at a version without a vector."""
    record = version_records(tables, lineage_id).get(version)
    return {name: record.num_items - count for name, count in record.num_vectors.items()} if record else {}


class VersionRecord(NamedTuple):
    """The ledger entry of a complete version. ``largest``: the largest absolute component of all vectors; 0 if none."""

    num_items: int
    num_vectors: dict[str, int]
    largest: float


def version_records(tables: Tables, lineage_id: str) -> dict[date, VersionRecord]:
    """Return a lineage's complete versions by the date they are valid from. Driver memory: one entry per version."""
    columns = ("valid_from", *VersionRecord._fields)
    rows = tables.ledger(ITEM_VECTOR_VERSIONS, columns, lineage_id=lineage_id)
    return {valid_from: VersionRecord(*record) for valid_from, *record in rows}

"""The ledger of erasure requests and the states that a request reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userrep.store.schemas import ERASURES
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

# States of a request, in this order. From BEGUN on, its tombstones exist.
ASKED, BEGUN, DELETED, DONE = "asked", "begun", "deleted", "done"


def newest_requests(tables: Tables) -> list[Row]:
    """Return the newest state of each request, the oldest request first. Driver memory: one entry per state."""
    newest = {row.request_id: row for row in sorted(tables.ledger(ERASURES), key=lambda row: row.recorded_at)}
    return sorted(newest.values(), key=lambda row: row.requested_at)

"""The registry of embedding spaces: candidate -> ready -> serving -> retired, one table, one commit a change."""

from dataclasses import dataclass
from datetime import date, datetime

from delta.exceptions import DeltaConcurrentModificationException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.ids import checked_name
from userrep.schemas import SPACES
from userrep.storage import artifacts_root
from userrep.tables import Tables

CANDIDATE, READY, SERVING, RETIRED = "candidate", "ready", "serving", "retired"


@dataclass(frozen=True)
class Space:
    """A row of ``spaces``. Times are UTC."""

    space_id: str
    state: str
    lineage_id: str
    trained_until: date
    content_hash: str
    created_at: datetime
    changed_at: datetime
    served_before: bool


def list_spaces(tables: Tables) -> list[Space]:
    """Return all spaces, oldest first."""
    return [Space(**row.asDict()) for row in tables.read(SPACES).orderBy("created_at", "space_id").collect()]


def find_space(tables: Tables, space_id: str | None) -> Space:
    """Return a space by id, or the serving one where no id is given.

    Raises
    ------
    UsageError
        If there is no such space, or none serves.
    """
    spaces = list_spaces(tables)
    if space_id is None:
        serving = next((space for space in spaces if space.state == SERVING), None)
        if serving is None:
            raise UsageError(
                "no space is serving. `userrep pipeline` trains one and promotes it where nothing serves; "
                "`userrep spaces promote SPACE` promotes one that is ready."
            )
        return serving
    checked_name(space_id, "space")
    found = next((space for space in spaces if space.space_id == space_id), None)
    if found is None:
        known = ", ".join(space.space_id for space in spaces) or "none"
        raise UsageError(f"space {space_id}: not in the registry; spaces there are: {known}.")
    return found


def artifact_folder(config: Config, space_id: str) -> str:
    """Return the folder of a space's artifact."""
    return f"{artifacts_root(config)}/artifacts/spaces/{checked_name(space_id, 'space')}"


def add_candidate(tables: Tables, *, space_id: str, lineage_id: str, trained_until: date, content_hash: str) -> None:
    """Register a trained space, once; a second call with the same id changes nothing."""
    row = (checked_name(space_id, "space"), CANDIDATE, lineage_id, trained_until, content_hash, False)
    new = tables.spark.createDataFrame(
        [row],
        "space_id STRING, state STRING, lineage_id STRING, trained_until DATE, content_hash STRING, "
        "served_before BOOLEAN",
    )
    known = tables.read(SPACES).select("space_id")
    tables.append(_stamped(new.join(known, on="space_id", how="left_anti")), SPACES)


def mark_ready(tables: Tables, space: Space) -> None:
    """Say that a candidate's snapshot has passed its gates."""
    _update(tables, f"space_id = '{space.space_id}' AND state = '{CANDIDATE}'", f"'{READY}'")


def promote(tables: Tables, space: Space) -> None:
    """Let a ready space serve, and the one that serves step back to ready: one commit.

    Raises
    ------
    UsageError
        If the space is not ready.
    UserrepError
        If another change of the registry came in between.
    """
    if space.state == SERVING:
        return
    if space.state != READY:
        raise UsageError(
            f"space {space.space_id} is {space.state}; only a ready space can serve. "
            "A candidate becomes ready when a snapshot of it is published: `userrep daily` or `userrep pipeline`."
        )
    _update(
        tables,
        f"space_id = '{space.space_id}' OR state = '{SERVING}'",
        f"CASE WHEN space_id = '{space.space_id}' THEN '{SERVING}' ELSE '{READY}' END",
        served=True,
    )


def rollback(tables: Tables) -> Space:
    """Let the space serve again that served last before the one that serves now. Never blocked by consumers.

    Raises
    ------
    UsageError
        If no other space has served.
    """
    spaces = list_spaces(tables)
    earlier = [space for space in spaces if space.served_before and space.state == READY]
    if not earlier:
        raise UsageError("rollback: no other space has served before.")
    back = max(earlier, key=lambda space: space.changed_at)
    promote(tables, back)
    return back


def retire(tables: Tables, space: Space) -> None:
    """Take a space out of use for good; its tables stay.

    Raises
    ------
    UsageError
        If it is serving.
    """
    if space.state == SERVING:
        raise UsageError(f"space {space.space_id} is serving; promote another one first, then retire it.")
    _update(tables, f"space_id = '{space.space_id}' AND state <> '{SERVING}'", f"'{RETIRED}'")


def _update(tables: Tables, where: str, state: str, *, served: bool = False) -> None:
    tables.create(SPACES)
    mark = ", served_before = true" if served else ""
    try:
        tables.spark.sql(
            f"UPDATE {tables.name(SPACES)} SET state = {state}, changed_at = current_timestamp(){mark} WHERE {where}"
        )
    except DeltaConcurrentModificationException:
        raise UserrepError(
            "spaces: another change of the registry came first; look with `userrep spaces list` and try again."
        ) from None


def _stamped(rows: DataFrame) -> DataFrame:
    return rows.withColumns({"created_at": F.current_timestamp(), "changed_at": F.current_timestamp()})

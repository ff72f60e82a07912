"""The registry of embedding spaces: candidate -> ready -> serving -> retired, one table, one commit a change."""

from dataclasses import dataclass
from datetime import date, datetime

from delta.exceptions import DeltaConcurrentModificationException

from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.ids import checked_name
from userrep.schemas import SPACES
from userrep.storage import artifacts_root
from userrep.tables import Tables
from userrep.utc import utc_now

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
    spaces = [Space(**row.asDict()) for row in tables.ledger(SPACES)]
    return sorted(spaces, key=lambda space: (space.created_at, space.space_id))


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
    checked_name(space_id, "space")
    if any(row.space_id == space_id for row in tables.ledger(SPACES, ("space_id",))):
        return
    now = utc_now()
    row = {
        "space_id": space_id,
        "state": CANDIDATE,
        "lineage_id": lineage_id,
        "trained_until": trained_until,
        "content_hash": content_hash,
        "created_at": now,
        "changed_at": now,
        "served_before": False,
    }
    tables.add(SPACES, [row])


def mark_ready(tables: Tables, space: Space) -> None:
    """Say that a candidate's snapshot has passed its gates."""
    _set_state(tables, f"space_id = '{space.space_id}' AND state = '{CANDIDATE}'", READY, must_change=False)


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
    # The condition is looked at within the commit: a space that has been retired meanwhile matches nothing.
    name, mine = tables.name(SPACES), f"space_id = '{space.space_id}'"
    _commit(
        tables,
        f"MERGE INTO {name} AS t USING (SELECT space_id FROM {name} WHERE {mine} AND state = '{READY}') AS s "
        f"ON t.space_id = s.space_id OR t.state = '{SERVING}' WHEN MATCHED THEN UPDATE SET "
        f"state = CASE WHEN t.space_id = s.space_id THEN '{SERVING}' ELSE '{READY}' END, "
        "changed_at = current_timestamp(), served_before = true",
        must_change=True,
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
    _set_state(tables, f"space_id = '{space.space_id}' AND state <> '{SERVING}'", RETIRED, must_change=True)


def _set_state(tables: Tables, where: str, state: str, *, must_change: bool) -> None:
    change = f"SET state = '{state}', changed_at = current_timestamp()"
    _commit(tables, f"UPDATE {tables.name(SPACES)} {change} WHERE {where}", must_change=must_change)


def _commit(tables: Tables, statement: str, *, must_change: bool) -> None:
    """Run a change of the registry as one commit; refuse if another one came first."""
    tables.create(SPACES)
    try:
        changed = tables.spark.sql(statement).first()
    except DeltaConcurrentModificationException:
        changed = None
    if changed is None or (must_change and not changed.num_affected_rows):
        raise UserrepError(
            "spaces: another change of the registry came first; look with `userrep spaces list` and try again."
        )

"""Erasure of users from everything that is stored, and protection from their return: ``userrep forget``.

Tombstones are written first. Runs that start later skip the users' rows in the log, so the rows that are deleted then,
upstream tables first, do not come back. Every step looks at what is stored, not at how far an earlier attempt came, so
an interrupted erasure can be repeated.

States of a request in ``erasures``. A run that is killed leaves the state above the arrow.

    asked     only the same command continues it, because the request has no user ids
      |    tombstones are written
    begun     runs that start later skip the users; any later ``userrep forget`` continues it
      |    rows, exports and vectors of the online store are erased, again for rows that came back meanwhile
    deleted   older table versions have the rows until ``due_at``, which moves if rows came back
      |    older files are deleted: by a run without user ids after ``due_at``, or with ``--now`` if no other run is
      |    under way
    done      asked again if a command names the same users again
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.erasure.exports import erase_from_exports
from userrep.erasure.ledgers import drop_training_rows, moved_pins, recount
from userrep.erasure.request_states import ASKED, BEGUN, DELETED, DONE, newest_requests
from userrep.erasure.rewrite import ErasedRows, ErasedUsers, erase_rows
from userrep.errors import plural
from userrep.features.ledger import features_tables
from userrep.ids import snapshot_id
from userrep.sources.tombstones import add_tombstones, read_tombstones, request_id_of
from userrep.spaces.registry import read_registry
from userrep.store import schemas
from userrep.store.filesystem import delete_folder, folder_names, newest_change
from userrep.store.leases import DELETING, held, is_held, under_way
from userrep.store.schemas import TableSchema
from userrep.store.tables import RETENTION, Tables
from userrep.streaming.checkpoint import stream_lease
from userrep.streaming.redis_store import check_online_store, online_store
from userrep.utc import utc_now

logger = logging.getLogger(__name__)

_STREAM_RUNNING = (
    "no longer encodes these users; its state keeps their events until the open days close, and collects more until "
    "the stream is restarted"
)
_STREAM_STOPPED = (
    "does not run; its checkpoint may have records of these users until it is removed, 7 days after its last batch"
)
STREAM_REMOVED = "checkpoint removed; start it again with `userrep stream --new-query-id NAME`"
Receipt = dict[str, Any]
CLOCKS = timedelta(hours=1)  # by which the clocks of machines that write files may differ


@dataclass
class Erasure:
    """A run of ``userrep forget``. Without ``user_ids`` it continues and finishes earlier requests."""

    tables: Tables
    config: Config
    user_ids: Sequence[str]

    def run(self, *, now: bool) -> Receipt:
        """Erase the users, or finish earlier requests; return the receipt, which has no user ids.

        Without ``user_ids``, the files added since the oldest open request are searched for rows that came back; all
        files, if one of the requests was interrupted before its rows were deleted.
        Requests whose retention is over are finished if no such row was found. Without open requests nothing is done.

        Older table versions contain the erased rows for ``RETENTION`` more. With ``now``, all files are searched; files
        that only older versions need are deleted at once, and so are the checkpoints of streams, whose state has the
        events of open days.

        While another run has a lease on these tables, ``now`` deletes no file that it may need and finishes no request,
        because the run may write rows that it read earlier. The receipt names the run.

        Raises
        ------
        AlreadyRunningError
            If another erasure is running on these tables.
        UsageError
            If the configured online store cannot be opened.
        """
        with held(self.tables, "forget"):
            return self._run(now=now)

    def _run(self, *, now: bool) -> Receipt:
        receipt: Receipt = {"request_id": None, "num_users": len(self.user_ids)}
        before = {row.request_id: row for row in newest_requests(self.tables)}
        since: datetime | None = None
        requests = [row.asDict() for row in before.values() if row.state in (BEGUN, DELETED)]
        if not (self.user_ids or requests or (now and before)):
            if before:
                self._end_streams(now=False)
            return receipt | {"is_idle": True}
        check_online_store(self.config.streaming)
        if self.user_ids:
            requests = [self._open_request(before, receipt)]
        else:
            since = search_start(requests, now=now)
        # Runs that start after the tombstones skip these users. Runs from before may write their rows again.
        other_runs = under_way(self.tables)
        self._erase_everywhere(since, receipt)
        with held(self.tables, DELETING) if now else nullcontext():  # from here on, no other run starts
            other_runs |= under_way(self.tables)  # these may miss files once they are deleted
            # A stream never ends. It leaves these users out from its next micro-batch on.
            receipt["under_way"] = sorted(
                run for run in other_runs.values() if now or not run.startswith(stream_lease(""))
            )
            return self._deleted(requests, receipt, now=now and not other_runs)

    def _deleted(self, requests: list[dict[str, Any]], receipt: Receipt, *, now: bool) -> Receipt:
        """Record the rows as deleted, delete old files that are due, and finish requests; return the receipt."""
        due_at = utc_now() + RETENTION
        receipt["streams"] = self._end_streams(now=now)
        if not self.user_ids and not receipt["rows"]:  # no rows came back, so the retention is not extended
            requests = [row for row in requests if row["state"] == BEGUN]
        self._record(requests, state=DELETED, due_at=due_at, receipt=json.dumps(receipt, default=str))
        finished = self._finished(receipt["request_id"], now=now)
        if finished or now:
            self._vacuum(now=now)
        self._record(finished, state=DONE)
        receipt |= {"kept_until": None if now else due_at, "num_done": len(finished)}
        return receipt

    def _open_request(self, before: Mapping[str, Row], receipt: Receipt) -> dict[str, Any]:
        """Record the request and write its tombstones."""
        request_id = receipt["request_id"] = request_id_of(self.tables, self.user_ids)
        requested_at = before[request_id].requested_at if request_id in before else utc_now()
        request = {"request_id": request_id, "requested_at": requested_at, "num_users": len(self.user_ids)}
        self._record([request], state=ASKED, due_at=None, receipt=json.dumps(receipt))
        receipt["num_new"] = add_tombstones(self.tables, self.user_ids)
        self._record([request], state=BEGUN, due_at=None, receipt=json.dumps(receipt))
        return request

    def _record(self, requests: Sequence[dict[str, Any]], **changes: Any) -> None:
        """Record requests in a new state."""
        if requests:
            self.tables.add(schemas.ERASURES, [request | changes | {"recorded_at": utc_now()} for request in requests])

    def _erase_everywhere(self, since: datetime | None, receipt: Receipt) -> None:
        """Erase the users from tables, exports and the online store; note in the receipt what was erased."""
        users = ErasedUsers.of(read_tombstones(self.tables), self.user_ids)
        erased = self._erase_from_tables(users, since)
        if self.user_ids:
            receipt["num_with_rows"] = len(set().union(*(part.users for part in erased.values())))
        receipt["rows"] = {name: part.rows for name, part in erased.items() if part.rows}
        receipt["training_sets"] = self._affected_training_sets(erased[schemas.USER_EMBEDDINGS.name])
        receipt["exports"] = erase_from_exports(self.tables, users.mask)
        receipt["online"] = self._erase_online(users)

    def _finished(self, request_id: str | None, *, now: bool) -> list[dict[str, Any]]:
        """Return the requests that are done once old files are deleted: this run's, or those with expired retention."""
        deleted = [row.asDict() for row in newest_requests(self.tables) if row.state == DELETED]
        if not now:
            return [] if self.user_ids else [row for row in deleted if row["due_at"] <= utc_now()]
        return [row for row in deleted if not self.user_ids or row["request_id"] == request_id]

    def _erase_from_tables(self, users: ErasedUsers, since: datetime | None) -> dict[str, ErasedRows]:
        erased = {}
        with moved_pins(self.tables):
            for table in tables_of_users(self.tables):
                part = erased[table.name] = erase_rows(self.tables, table, users, since=since)
                logger.info(f"forget: {table.name}: {plural(part.rows, 'row')} of {plural(len(part.users), 'user')}")
            recount(self.tables)
        drop_training_rows(self.tables)
        return erased

    def _affected_training_sets(self, erased: ErasedRows) -> list[str]:
        """Return the training sets whose snapshots have lost rows."""
        touched = {snapshot_id(key["space_id"], key["as_of"], key["revision"]) for key in erased.partitions}
        sets = self.tables.ledger(schemas.TRAINING_SETS, ("training_set_id", "snapshot_ids"))
        return sorted(row.training_set_id for row in sets if touched & set(row.snapshot_ids))

    def _erase_online(self, users: ErasedUsers) -> int | None:
        """Delete the users' vectors from the online store; return their number, or None if no store is configured."""
        store = online_store(self.config.streaming)
        if store is None:
            return None
        spaces = [space.space_id for space in read_registry(self.tables).spaces]
        if self.user_ids:
            return sum(store.delete(space_id, self.user_ids) for space_id in spaces)
        return sum(store.delete_where(space_id, users.tombstones.contains) for space_id in spaces)

    def _end_streams(self, *, now: bool) -> dict[str, str]:
        """Return what happens to each stream, and delete the checkpoints that ``streams_after`` names as removed."""
        results = streams_after(self.tables, now=now)
        for name, result in results.items():
            if result == STREAM_REMOVED:
                logger.info(f"forget: stream {name}: {result}")
                delete_folder(f"{self.tables.artifacts_root}/streams/{name}")
        return results

    def _vacuum(self, *, now: bool) -> None:
        for table in (*tables_of_users(self.tables), schemas.TRAINING_ROWS):
            self.tables.vacuum(table, timedelta(0) if now else RETENTION)
        logger.info("forget: removed the files of older table versions")


def search_start(requests: Sequence[Mapping[str, Any] | Row], *, now: bool) -> datetime | None:
    """Return the time from which on files are searched to continue these requests; None: all files are.

    All files are searched with ``now``, and if a request was interrupted before its rows were deleted: it may have
    searched none.
    """
    is_searched = not now and all(request["state"] == DELETED for request in requests)
    return min(request["requested_at"] for request in requests) - CLOCKS if is_searched else None


def streams_after(tables: Tables, *, now: bool) -> dict[str, str]:
    """Return what an erasure does to each stream, whose checkpoint has records of users.

    Checkpoints of streams that have not run for ``RETENTION`` are removed; with ``now``, all are.
    """
    folder, results = f"{tables.artifacts_root}/streams", {}
    for name in folder_names(folder):
        if now:
            results[name] = STREAM_REMOVED
        elif is_held(tables, stream_lease(name)):
            results[name] = _STREAM_RUNNING
        else:
            changed_at = max(newest_change(f"{folder}/{name}{part}") for part in ("", "/embeddings/commits"))
            results[name] = STREAM_REMOVED if changed_at < utc_now() - RETENTION else _STREAM_STOPPED
    return results


def tables_of_users(tables: Tables) -> list[TableSchema]:
    """Return the tables with rows of users, each after the tables that its rows are built from."""
    of_users = [table for table in schemas.ALL if table is schemas.REJECTED_EVENTS or "user_id" in table.names]
    split = of_users.index(schemas.USER_EMBEDDINGS)  # built from features
    return [*of_users[:split], *features_tables(tables), *of_users[split:]]

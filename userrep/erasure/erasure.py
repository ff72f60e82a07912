"""Users taken out of everything that is kept of them, and kept out: what ``userrep forget`` does.

Tombstones come first. From then on no run that begins takes the users' rows of the log; so what is deleted after that,
upstream first, stays deleted. Nothing depends on how far an earlier attempt came: each step looks for what is there.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import Row

from userrep.config import Config
from userrep.erasure.erased_ledgers import Pins, drop_training_rows, recount
from userrep.erasure.erased_rows import ErasedRows, Gone, erase_rows
from userrep.errors import UsageError, in_one_line
from userrep.features.build import features_tables
from userrep.ids import snapshot_id
from userrep.sources.tombstones import add_tombstones, read_tombstones, request_id_of
from userrep.spaces.registry import read_registry
from userrep.store.leases import held, under_way
from userrep.store.parquet_parts import erase_from_parts
from userrep.store.schemas import (
    EMBEDDING_UPDATES,
    ERASURES,
    EXPORTS,
    REJECTED_EVENTS,
    TRAINING_ROWS,
    TRAINING_SETS,
    USER_EMBEDDINGS,
    USER_ITEM_DAYS,
    USER_OPENINGS,
    USER_PROFILES,
    USER_WINDOW_SUMS,
    TableSchema,
)
from userrep.store.storage import delete_folder, exists, folder_names
from userrep.store.tables import RETENTION, Tables
from userrep.streaming.online import online_store
from userrep.utc import utc_now

ASKED, BEGUN, DELETED, DONE = "asked", "begun", "deleted", "done"  # begun: from the tombstones on
_MOST_BYTES = 1024  # of an id
_STREAMS_ON = (
    "makes no more vectors of them; its state holds their events of open days, and takes more until it is started again"
)
_CLOCKS = timedelta(hours=1)  # by which those of machines that write files may differ


def read_ids(path: Path) -> list[str]:
    """Read user ids from a text file: one a line, in UTF-8; blank lines and repetitions don't count.

    Raises
    ------
    UsageError
        If the file is not there, is not text, has no id, or a line is longer than 1024 bytes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise UsageError(f"--users {path}: {error.strerror}. Name a text file with one user id a line.") from None
    except UnicodeDecodeError:
        raise UsageError(f"--users {path}: not a text in UTF-8; write one user id a line.") from None
    ids = list(dict.fromkeys(line for line in lines if line.strip()))
    if not ids:
        raise UsageError(f"--users {path}: no user id in it; write one a line.")
    long = next((k for k, line in enumerate(lines, 1) if len(line.encode()) > _MOST_BYTES), None)
    if long is not None:
        raise UsageError(f"--users {path}: line {long} is longer than {_MOST_BYTES} bytes; write one user id a line.")
    return ids


@dataclass
class Erasure:
    """Forgets users. ``user_ids``: none to do again, and bring to an end, what earlier requests asked for."""

    tables: Tables
    config: Config
    user_ids: Sequence[str]
    report: Callable[[str], None]

    def run(self, *, now: bool) -> dict[str, Any]:
        """Forget; return the receipt, which has no ids.

        Without users, what files were added since the requests that are not done is looked through, and what is due is
        brought to an end: requests are done once their time is over and nothing has come back; where nothing waits,
        nothing is done. With ``now``, all files are looked through.

        ``now``: files that only older versions of tables need go at once, and so do the checkpoints of streams, whose
        state holds the events of open days. Otherwise these files can be read for ``RETENTION`` more by whoever asks
        for an older version. While another run holds a lease on these tables, no file goes at once that it might miss,
        and no request is done, since it may write what it has read of the users before; the receipt names the run.

        Raises AlreadyRunningError if another erasure is at work on these tables.
        """
        with held(self.tables, "forget"):
            return self._run(now=now)

    def _run(self, *, now: bool) -> dict[str, Any]:
        receipt: dict[str, Any] = {"request_id": None, "num_users": len(self.user_ids)}
        before = {row.request_id: row for row in newest_requests(self.tables)}
        since: datetime | None = None
        if self.user_ids:
            asked = self._ask(before, receipt)
        else:
            open_rows = [row for row in before.values() if row.state in (BEGUN, DELETED)]
            asked = {row.request_id: (row.requested_at, row.num_users) for row in open_rows}
            if not open_rows and not (now and before):
                return receipt | {"is_idle": True}
            since = None if now else min(row.requested_at for row in open_rows) - _CLOCKS
        others = under_way(self.tables, but="forget")  # who begins from here on passes over the users
        gone = Gone.of(read_tombstones(self.tables), self.user_ids)
        erased = self._tables(gone, since)
        if self.user_ids:
            receipt["num_with_rows"] = len(set().union(*(of.users for of in erased.values())))
        receipt["rows"] = {name: of.rows for name, of in erased.items() if of.rows}
        receipt["training_sets"] = self._pinned(erased[USER_EMBEDDINGS.name])
        receipt["exports"] = self._exports(gone)
        receipt["online"] = self._online(gone)
        receipt["streams"] = self._streams(now=now)
        others |= under_way(self.tables, but="forget")  # and might miss files
        receipt["under_way"] = sorted(others.values())
        now, due_at = now and not others, utc_now() + RETENTION
        if not self.user_ids and not receipt["rows"]:  # nothing has come back: their time goes on
            asked = {of: what for of, what in asked.items() if before[of].state == BEGUN}
        self._record(asked, DELETED, due_at, receipt)
        over = self._over(asked, now=now)
        if over or now:
            self._vacuum(now=now)
        self._record_done(over)
        receipt |= {"kept_until": None if now else due_at, "num_done": len(over)}
        return receipt

    def _ask(self, before: Mapping[str, Row], receipt: dict[str, Any]) -> dict[str, tuple[datetime, int]]:
        """Record the request, and put up its tombstones; return it by its id: since when, and of how many."""
        request_id = receipt["request_id"] = request_id_of(self.tables, self.user_ids)
        since = before[request_id].requested_at if request_id in before else utc_now()
        asked = {request_id: (since, len(self.user_ids))}
        self._record(asked, ASKED, None, receipt)
        receipt["num_new"] = add_tombstones(self.tables, self.user_ids)
        self._record(asked, BEGUN, None, receipt)
        return asked

    def _over(self, asked: Collection[str], *, now: bool) -> list[Row]:
        """Return the requests that are done once files are gone: at once, this one and those looked through with it."""
        deleted = [row for row in newest_requests(self.tables) if row.state == DELETED]
        if not now:
            return [] if self.user_ids else [row for row in deleted if row.due_at <= utc_now()]
        return [row for row in deleted if not self.user_ids or row.request_id in asked]

    def _record_done(self, over: Sequence[Row]) -> None:
        done = [row.asDict() | {"state": DONE, "recorded_at": utc_now()} for row in over]
        if done:
            self.tables.add(ERASURES, done)

    def _record(
        self, asked: Mapping[str, tuple[datetime, int]], state: str, due_at: datetime | None, receipt: dict[str, Any]
    ) -> None:
        row = {"state": state, "due_at": due_at, "receipt": json.dumps(receipt, default=str), "recorded_at": utc_now()}
        rows = [
            row | {"request_id": request_id, "requested_at": since, "num_users": num_users}
            for request_id, (since, num_users) in asked.items()
        ]
        if rows:
            self.tables.add(ERASURES, rows)

    def _tables(self, gone: Gone, since: datetime | None) -> dict[str, ErasedRows]:
        pins, erased = Pins(self.tables), {}
        for table in _tables_of_users(self.tables):
            done = erased[table.name] = erase_rows(self.tables, table, gone, since=since)
            self.report(f"forget: {table.name}: {done.rows:,} rows of {len(done.users):,} users")
        recount(self.tables)
        pins.move()
        drop_training_rows(self.tables)
        return erased

    def _pinned(self, erased: ErasedRows) -> list[str]:
        """Return the training sets whose snapshots have lost rows."""
        touched = {snapshot_id(of["space_id"], of["as_of"], of["revision"]) for of in erased.partitions}
        sets = self.tables.ledger(TRAINING_SETS, ("training_set_id", "snapshot_ids"))
        return sorted(row.training_set_id for row in sets if touched & set(row.snapshot_ids))

    def _exports(self, gone: Gone) -> dict[str, str]:
        """Take the users out of the exports that are still where they were written."""
        told = {}
        for path in sorted({row.path for row in self.tables.ledger(EXPORTS, ("path",))}):
            try:
                num_rows = erase_from_parts(self.tables.spark, path, gone.hold)
            except (OSError, ValueError, PySparkException) as error:  # the last: from tasks
                told[path] = f"not read ({in_one_line(error)[:200]}): erase there by hand, or export again"
                continue
            if num_rows is not None:
                told[path] = f"{num_rows} rows"
                self.report(f"forget: export {path}: {num_rows:,} rows")
        return told

    def _online(self, gone: Gone) -> int | None:
        """Delete the users' vectors from the online store; return how many there were, None without a store."""
        store = online_store(self.config.streaming)
        if store is None:
            return None
        spaces = [space.space_id for space in read_registry(self.tables).spaces]
        if self.user_ids:
            return sum(store.delete(space_id, self.user_ids) for space_id in spaces)
        return sum(store.delete_where(space_id, gone.tombstones.holds) for space_id in spaces)

    def _streams(self, *, now: bool) -> dict[str, str]:
        """Say what streams still hold; remove it ``now``."""
        folder = f"{self.tables.artifacts_root}/streams"
        names = folder_names(folder) if exists(folder) else []
        if not now:
            return dict.fromkeys(names, _STREAMS_ON)
        for name in names:
            delete_folder(f"{folder}/{name}")
        return dict.fromkeys(names, "removed: go on with `userrep stream --new-query-id NAME`")

    def _vacuum(self, *, now: bool) -> None:
        for table in (*_tables_of_users(self.tables), TRAINING_ROWS):
            self.tables.vacuum(table, timedelta(0) if now else RETENTION)
        self.report("forget: files of older versions are removed")


def _tables_of_users(tables: Tables) -> list[TableSchema]:
    """Return the tables with rows of users, each after those that its rows are made from."""
    before = [USER_PROFILES, USER_ITEM_DAYS, REJECTED_EVENTS, USER_WINDOW_SUMS, USER_OPENINGS]
    return [*before, *features_tables(tables), USER_EMBEDDINGS, EMBEDDING_UPDATES]


def newest_requests(tables: Tables) -> list[Row]:
    """Return each request as it stands, the oldest first. Driver memory: an entry for each state of each."""
    newest = {row.request_id: row for row in sorted(tables.ledger(ERASURES), key=lambda row: row.recorded_at)}
    return sorted(newest.values(), key=lambda row: row.requested_at)


def receipt_lines(receipt: Mapping[str, Any]) -> list[str]:
    """Say in words what a receipt has."""
    if "is_idle" in receipt:
        return ["nothing to do: no request is open"]
    lines = []
    if receipt["request_id"]:
        known = receipt["num_users"] - receipt["num_new"]
        before = f", {known:,} forgotten before" if known else ""
        users = f"{receipt['num_users']:,} users, {receipt['num_with_rows']:,} of them with rows{before}"
        lines.append(f"request {receipt['request_id']}: {users}")
    lines += [f"{table}: {rows:,} rows deleted" for table, rows in receipt["rows"].items()]
    lines += [f"training set {name}: lost rows of its snapshots" for name in receipt["training_sets"]]
    lines += [f"export {path}: {said}" for path, said in receipt["exports"].items()]
    if receipt["online"] is not None:
        lines.append(f"online store: {receipt['online']:,} vectors deleted")
    lines += [f"stream {name}: {said}" for name, said in receipt["streams"].items()]
    for run in receipt["under_way"]:
        lines.append(
            f"under way meanwhile: {run}. It may bring back what it has read before: when it has ended, run `userrep "
            "forget` again, with --now if nothing is to be left"
        )
    if receipt["kept_until"] is None:
        lines.append("older versions of the tables: removed")
    elif receipt["rows"]:
        lines.append(
            f"older versions of the tables: readable until {receipt['kept_until']:%Y-%m-%d %H:%M} UTC, removed by the "
            "next `userrep forget` after that"
        )
    if receipt["num_done"]:
        lines.append(f"requests done, nothing left of them: {receipt['num_done']}")
    return lines

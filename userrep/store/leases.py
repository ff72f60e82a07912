"""One run of a job at a time on a root: a row of ``leases`` says who has it, and a file beside it that they live.

The row is put there by compare and swap, so that of two who come at once one gets it. Who has it writes the file anew
every 10 s. A lease is over when its holder gives it back, when its process is known to be gone (on the same machine),
or when nothing was heard of it for a minute; what its holder has begun is then made good as after any kill. A holder
that was only asleep finds its file gone, and stops at the next stage.

Leases save work that would be lost. They do not protect the tables: each commit does that by itself, since it is
refused if another run has changed what it was made from.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from pathlib import Path

from pyspark.sql import Row

from userrep.errors import AlreadyRunningError, UserrepError
from userrep.logs import this_run_id
from userrep.store.schemas import LEASES
from userrep.store.storage import delete_file, exists, read_bytes, write_bytes
from userrep.store.tables import Tables
from userrep.utc import utc_now

BEAT = timedelta(seconds=10)
STALE = timedelta(seconds=60)  # after which a holder that was not heard of counts as dead
_ATTEMPTS = 20  # to take it, each on the newest leases
_mine: set[object] = set()  # ids of the leases that this process holds
_held: ContextVar[tuple["_Beat", ...]] = ContextVar("held", default=())  # by the code that is running


@contextmanager
def held(tables: Tables, job: str, *, nested: bool = False) -> Iterator[None]:
    """Hold the lease of a job of this root meanwhile. Cost: two commits, and a small file every 10 s.

    ``nested``: within a block that holds it already, nothing happens.

    Raises
    ------
    AlreadyRunningError
        If another run has it, by name; nothing was changed then. Or, within the block, if this process slept for so
        long that another has taken it.
    """
    if nested and any(beat.job == job and beat.root == tables.artifacts_root for beat in _held.get()):
        yield
        return
    row = _taken(tables, job)
    lease_id = row["lease_id"]
    beat = _Beat(tables, row, lambda: any(lease.lease_id == lease_id for lease in tables.ledger(LEASES)))
    token = _held.set((*_held.get(), beat))
    try:
        yield
        check_held()
    finally:
        _held.reset(token)
        beat.end()
        _mine.discard(row["lease_id"])
        if not beat.is_lost:
            with suppress(Exception):  # what the job itself has to say comes first; the lease ends by its age
                _give_back(tables, row)


def check_held() -> None:
    """Check that no other run has taken a lease that the calling code holds. Cost: a look at each lease's file.

    Raises
    ------
    AlreadyRunningError
        If another run has. What this one has committed stays.
    """
    for beat in _held.get():
        if beat.check_lost():
            raise AlreadyRunningError(
                f"{beat.job}: nothing was heard of this run for more than {STALE.seconds} s, and another one has taken "
                "its place. This one has stopped; what it has committed stays."
            )


class _Beat:
    """Writes the time into a file again and again, until it is told to end, or another has taken the lease."""

    def __init__(self, tables: Tables, row: Mapping[str, object], is_mine: Callable[[], bool]) -> None:
        self.root, self.job, self.is_lost = tables.artifacts_root, row["job"], False
        self._file, self._is_there = _file(tables, row), False
        self._is_mine, self._began_at = is_mine, utc_now()
        self._is_over = threading.Event()
        with suppress(OSError):  # as below
            self._write()
        self._thread = threading.Thread(target=self._go_on, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def check_lost(self) -> bool:
        """Check whether another run has taken the lease; a store that does not answer changes nothing."""
        with suppress(OSError):
            self.is_lost = self.is_lost or (self._is_there and self._is_taken())
        return self.is_lost

    def _go_on(self) -> None:
        while not self._is_over.wait(BEAT.total_seconds()):
            with suppress(Exception):  # a store that is away for a moment
                if self.check_lost():
                    return
                self._write()

    def _is_taken(self) -> bool:
        """Say whether another has the lease. It takes the file away; who slept while writing it has put it back."""
        if not exists(self._file):
            return True
        return utc_now() - self._began_at >= STALE and not self._is_mine()

    def _write(self) -> None:
        self._began_at = utc_now()
        write_bytes(self._file, self._began_at.isoformat().encode())
        self._is_there = True


def _taken(tables: Tables, job: str) -> dict[str, object]:
    """Put a row of this process in the place of one whose holder is gone."""
    for _ in range(_ATTEMPTS):
        rows = tables.ledger(LEASES)
        before = next((row for row in rows if row.job == job), None)
        if before is not None and before.ended_at is None:
            _check_gone(tables, before)
        mine = {
            "job": job,
            "lease_id": uuid.uuid4().hex,
            "run_id": this_run_id(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started_at": utc_now(),
            "ended_at": None,
        }
        _mine.add(mine["lease_id"])  # before anybody can see it
        others = [row.asDict() for row in rows if row.job != job]
        if tables.exchange(LEASES, [*others, mine], since=max((row.change_id for row in rows), default=None)):
            if before is not None:
                _forget(_file(tables, before.asDict()))
            return mine
    raise UserrepError(f"{job}: other runs keep on beginning. Run the command again.")


def _give_back(tables: Tables, mine: dict[str, object]) -> None:
    for _ in range(_ATTEMPTS):
        rows = tables.ledger(LEASES)
        if mine["lease_id"] not in {row.lease_id for row in rows}:
            return
        others = [row.asDict() for row in rows if row.lease_id != mine["lease_id"]]
        ended = mine | {"ended_at": utc_now()}
        if tables.exchange(LEASES, [*others, ended], since=max(row.change_id for row in rows)):
            _forget(_file(tables, mine))
            return


def under_way(tables: Tables, *, but: str) -> dict[str, str]:
    """Return the runs that hold, or may hold, leases of jobs other than ``but``: by run id, the first job and process.

    Cost: a look at the ledger; 20 s for each holder that nothing was heard of for a minute.
    """
    others = [row for row in tables.ledger(LEASES) if row.job != but and row.ended_at is None]
    others.sort(key=lambda row: row.started_at, reverse=True)
    return {row.run_id: f"{row.job}: {_who(row)}" for row in others if _silence(tables, row) is not None}


def _check_gone(tables: Tables, holder: Row) -> None:
    """Refuse while a holder lives, or may."""
    silent = _silence(tables, holder)
    if silent is not None:
        raise AlreadyRunningError(
            f"{holder.job} is already running: {_who(holder)}, heard of {max(0, int(silent.total_seconds()))} s ago; "
            f"nothing was changed. Wait for its end. Of one that died, the place is free {STALE.seconds} s after it "
            "was last heard of."
        )


def _who(holder: Row) -> str:
    since = f"{holder.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"run {holder.run_id} on {holder.host}, process {holder.pid}, since {since}"


def _silence(tables: Tables, holder: Row) -> timedelta | None:
    """Return for how long nothing was heard of a holder that has not given its lease back; None: it is gone."""
    if holder.machine and holder.machine == _machine():
        is_there = Path(f"/proc/{holder.pid}").exists()
        if not is_there or (holder.pid == os.getpid() and holder.lease_id not in _mine):
            return None  # the last: a store was away when this process was to give it back
    heard_at = _heard(tables, holder)
    silent = utc_now() - heard_at
    if silent < STALE:
        return silent
    time.sleep(2 * BEAT.total_seconds())  # its clock may be behind: does it still write?
    return None if _heard(tables, holder) == heard_at else timedelta(0)


def _heard(tables: Tables, holder: Row) -> datetime:
    """Return when a holder last said that it lives."""
    heard_at: datetime = holder.started_at
    with suppress(OSError, ValueError):  # not yet written
        said = read_bytes(_file(tables, holder.asDict()), max_bytes=64).decode()
        heard_at = max(heard_at, datetime.fromisoformat(said))
    return heard_at


def _file(tables: Tables, row: Mapping[str, object]) -> str:
    return f"{tables.artifacts_root}/artifacts/leases/{row['job']}-{row['lease_id']}"


def _forget(file: str) -> None:
    with suppress(OSError):
        delete_file(file)


def _machine() -> str:
    """Name the boot and the namespace in which a process id means the same; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""

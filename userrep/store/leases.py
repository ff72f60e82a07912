"""Leases, which let only one run of a job work on a root at a time.

A lease is a row of the table ``leases`` and a heartbeat file. The row is written by compare-and-swap, so only one of
several simultaneous runs gets the lease. Its holder rewrites the file every 10 s. A lease ends when the holder releases
it, when the holder's process no longer exists (if it ran on the same machine), or after a minute without a heartbeat;
the next run then continues as after any kill. A holder that was only suspended finds another run in the row, and stops
at the next stage.

Leases only avoid wasted work; they do not protect the tables. Each commit does that itself: it is refused if another
run has changed the data that it is based on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deltalake.exceptions import DeltaError

from userrep.errors import AlreadyRunningError, UserrepError
from userrep.logs import this_run_id
from userrep.store.filesystem import delete_file, read_bytes, write_bytes
from userrep.store.schemas import LEASES
from userrep.store.tables import Tables
from userrep.utc import utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

HEARTBEAT = timedelta(seconds=10)
EXPIRY = timedelta(seconds=60)  # time without a heartbeat after which a holder is considered dead
DELETING = "delete_old_files"  # job of an erasure while it deletes files that another run may be about to commit
_ERASURE = ("forget", DELETING)
_CERTAINLY_GONE = timedelta(days=1)  # without a heartbeat, however wrong the holder's clock is
_own_lease_ids: set[str] = set()  # of this process


class _Lease(NamedTuple):
    """A lease on the root of ``tables``."""

    tables: Tables
    job: str
    lease_id: str


_leases: ContextVar[tuple[_Lease, ...]] = ContextVar("leases", default=())  # that the running code holds


@contextmanager
def held(tables: Tables, job: str, *, nested: bool = False) -> Iterator[None]:
    """Hold the lease of a job on this root within the block. Cost: two commits, and a small write every 10 s.

    With ``nested``, a block within another block that holds the same lease does nothing.

    Raises
    ------
    AlreadyRunningError
        If another run holds the lease, or an erasure is deleting files; nothing has been changed then. At the end of
        the block, if this process was suspended for so long that another run has taken the lease.
    UserrepError
        If other runs keep changing the table of leases.
    """
    leases, root = _leases.get(), tables.artifacts_root
    if nested and any((lease.tables.artifacts_root, lease.job) == (root, job) for lease in leases):
        yield
        return
    lease = _Lease(tables, job, uuid.uuid4().hex)
    with ExitStack() as at_end:
        _own_lease_ids.add(lease.lease_id)  # before the row is visible
        at_end.callback(_own_lease_ids.discard, lease.lease_id)
        _acquire(lease)
        at_end.callback(_release, lease)
        at_end.callback(_leases.reset, _leases.set((*leases, lease)))
        at_end.enter_context(_heartbeat(_file(tables, job, lease.lease_id)))
        yield
        check_held()


def check_held() -> None:
    """Check that no other run has taken a lease of the calling code. Cost: one read of the ledger of each root.

    Raises
    ------
    AlreadyRunningError
        If another run has taken one. What this run has committed stays.
    """
    leases = _leases.get()
    for root, tables in {lease.tables.artifacts_root: lease.tables for lease in leases}.items():
        try:
            current = {row.lease_id for row in tables.ledger(LEASES, ("lease_id",))}
        except (OSError, UserrepError, DeltaError):  # the store may be unreachable for a moment
            continue
        own = [lease for lease in leases if lease.tables.artifacts_root == root]
        lost = [lease.job for lease in own if lease.lease_id not in current]
        if lost:
            raise AlreadyRunningError(
                f"{lost[0]}: this run sent no heartbeat for more than {EXPIRY.seconds} s, and another run has taken "
                "its lease. This run has stopped; its committed work is kept."
            )


@contextmanager
def _heartbeat(file: str) -> Iterator[None]:
    """Write the time to a lease's file now and, by a thread, at each interval within the block."""
    is_over = threading.Event()

    def write() -> None:
        with suppress(OSError):  # the store may be unreachable for a moment
            write_bytes(file, utc_now().isoformat().encode())

    def run() -> None:
        while not is_over.wait(HEARTBEAT.total_seconds()):
            write()

    write()
    thread = threading.Thread(target=run, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _acquire(lease: _Lease) -> None:
    """Replace the row of the job, whose holder must be gone, by one of this process."""
    tables, job, lease_id = lease
    before: list[Row] = []

    def with_lease(rows: list[Row]) -> list[dict[str, object]]:
        before[:] = [row for row in rows if row.job == job]
        # Of a run and a deletion that start together, the later one sees the lease of the other.
        deletions = [row for row in rows if row.job == DELETING and job not in _ERASURE]
        for holder in before + deletions:
            _check_gone(tables, holder)
        own = {
            "job": job,
            "lease_id": lease_id,
            "run_id": this_run_id(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started_at": utc_now(),
        }
        return [*(row.asDict() for row in rows if row.job != job and row.ended_at is None), own]

    tables.change(LEASES, with_lease)
    for holder in before:
        with suppress(OSError):
            delete_file(_file(tables, job, holder.lease_id))


def _release(lease: _Lease) -> None:
    """Record the end of a lease, unless another run has taken it."""
    tables, job, lease_id = lease

    def released(rows: list[Row]) -> list[dict[str, object]] | None:
        if lease_id not in {row.lease_id for row in rows}:
            return None
        return [row.asDict() | ({"ended_at": utc_now()} if row.lease_id == lease_id else {}) for row in rows]

    with suppress(Exception):  # must not hide an error of the job; the lease expires anyway
        tables.change(LEASES, released)
        delete_file(_file(tables, job, lease_id))


def under_way(tables: Tables) -> dict[str, str]:
    """Return the runs that hold, or may hold, leases of other jobs than an erasure's.

    Keys are run ids; values describe the run's first job and its process. Cost: one read of the ledger, and 20 s for
    each holder without a heartbeat in the last minute.
    """
    others = sorted(tables.ledger(LEASES), key=lambda row: row.started_at, reverse=True)
    runs = [row for row in others if row.job not in _ERASURE and _silence(tables, row) is not None]
    return {row.run_id: f"{row.job}: {_description(row)}" for row in runs}


def is_held(tables: Tables, job: str) -> bool:
    """Return whether a run holds, or may hold, the lease of a job. Cost: that of ``under_way``."""
    return any(row.job == job and _silence(tables, row) is not None for row in tables.ledger(LEASES))


def _check_gone(tables: Tables, holder: Row) -> None:
    """Raise AlreadyRunningError while the holder is alive or may be."""
    silent = _silence(tables, holder)
    if silent is not None:
        raise AlreadyRunningError(
            f"{holder.job} is already running: {_description(holder)}, last heartbeat "
            f"{max(0, int(silent.total_seconds()))} s ago; nothing was changed. Wait until it ends. If it has died, "
            f"its lease expires {EXPIRY.seconds} s after the last heartbeat."
        )


def _description(holder: Row) -> str:
    since = f"{holder.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"run {holder.run_id} on {holder.host}, process {holder.pid}, since {since}"


def _silence(tables: Tables, holder: Row) -> timedelta | None:
    """Return the time since a holder's last heartbeat; None if it has released its lease or is gone."""
    if holder.ended_at is not None:
        return None
    is_here = holder.machine and holder.machine == _machine()
    # In this process: the store was unreachable when it released the lease.
    is_ours = holder.pid == os.getpid() and holder.lease_id not in _own_lease_ids
    if is_here and (is_ours or not _is_alive(holder.pid)):
        return None
    try:
        heartbeat_at = _last_heartbeat(tables, holder)
        silent = utc_now() - heartbeat_at
        if abs(silent) < EXPIRY:
            return silent
        if silent > _CERTAINLY_GONE:
            return None
        time.sleep(2 * HEARTBEAT.total_seconds())  # the holder's clock may be wrong: look for a new heartbeat
        return None if _last_heartbeat(tables, holder) == heartbeat_at else timedelta(0)
    except OSError:  # not readable: the holder may be alive, unless it began long ago
        return None if utc_now() - holder.started_at > _CERTAINLY_GONE else timedelta(0)


def _is_alive(pid: int) -> bool:
    try:
        with suppress(PermissionError):  # of a process of another account
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _last_heartbeat(tables: Tables, holder: Row) -> datetime:
    """Return the time of a holder's last heartbeat, by its own clock, or its start time before the first one.

    Raises OSError if the file cannot be read: the holder may be alive.
    """
    heartbeat_at: datetime = holder.started_at
    with suppress(FileNotFoundError, ValueError):  # not written yet
        text = read_bytes(_file(tables, holder.job, holder.lease_id), max_bytes=64).decode()
        heartbeat_at = datetime.fromisoformat(text)
    return heartbeat_at


def _file(tables: Tables, job: str, lease_id: str) -> str:
    return f"{tables.artifacts_root}/artifacts/leases/{job}-{lease_id}"


def _machine() -> str:
    """Return the boot and process namespace in which process ids are unique; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""

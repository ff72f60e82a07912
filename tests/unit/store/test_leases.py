"""Leases: one run of a job at a time on a root; a second run is refused, and the lease of a dead run is taken."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from userrep.config import Config
from userrep.erasure.requests import Erasure
from userrep.errors import AlreadyRunningError, UserrepError
from userrep.store import leases, schemas
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import folder_names
from userrep.store.leases import held
from userrep.store.schemas import LEASES
from userrep.store.tables import Tables
from userrep.utc import utc_now
from userrep.workflows import daily
from userrep.workflows.jobs import run_job
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.runs import Runs

pytestmark = pytest.mark.default

HEARTBEAT, EXPIRY = timedelta(seconds=0.2), timedelta(seconds=1)
HOLDER = f"""
import sys, time
from datetime import timedelta
from userrep.store import leases
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables
leases.HEARTBEAT = timedelta(seconds={HEARTBEAT.total_seconds()})
leases.EXPIRY = timedelta(seconds={EXPIRY.total_seconds()})
with leases.held(FileTables(None, sys.argv[1]), "daily"):
    print("held", flush=True)
    while True:  # stages of a job
        leases.check_held()
        time.sleep(0.1)
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    monkeypatch.setattr(leases, "HEARTBEAT", HEARTBEAT)
    monkeypatch.setattr(leases, "EXPIRY", EXPIRY)
    return FileTables(None, str(tmp_path))


@contextmanager
def holder(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Hold the lease of ``daily`` in another process."""
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_run_of_a_job_is_refused_with_the_name_of_the_first_and_another_job_runs(
    tables: Tables, tmp_path: Path
) -> None:
    with holder(tmp_path) as other:
        time.sleep(2 * EXPIRY.total_seconds())  # it goes on living
        before, own_ids = tables.version(LEASES), set(leases._own_lease_ids)
        who = (
            rf"daily is already running: run r\d+-\w+ on {re.escape(socket.gethostname())}, process {other.pid}, since"
        )
        with pytest.raises(AlreadyRunningError, match=who), held(tables, "daily"):
            pass
        assert tables.version(LEASES) == before
        assert leases._own_lease_ids == own_ids
        with held(tables, "forget"):
            pass


def test_the_lease_of_a_killed_process_is_taken_at_once(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY", timedelta(hours=1))
    with holder(tmp_path) as other:
        other.kill()
        other.wait()
        with held(tables, "daily"):
            assert [row.pid for row in tables.ledger(LEASES)] == [os.getpid()]
    assert folder_names(f"{tmp_path}/artifacts/leases") == []


def test_a_holder_that_slept_too_long_loses_its_lease_and_stops(tables: Tables, tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(AlreadyRunningError, match="already running"), held(tables, "daily"):
            pass
        time.sleep(EXPIRY.total_seconds())
        with held(tables, "daily"):
            other.send_signal(signal.SIGCONT)
            said = other.communicate(timeout=60)[1]
            (row,) = tables.ledger(LEASES)
            assert (row.pid, row.ended_at) == (os.getpid(), None)
    assert "this run sent no heartbeat for more than 1 s, and another run has taken its lease" in said


def taken_by_another_run(tables: Tables) -> None:
    tables.change(LEASES, lambda rows: [row.asDict() | {"lease_id": "other", "machine": "other"} for row in rows])


def test_a_holder_that_goes_on_writing_its_file_loses_its_lease_all_the_same(tables: Tables, tmp_path: Path) -> None:
    def slept() -> None:
        with held(tables, "daily"):
            (row,) = tables.ledger(LEASES)
            taken_by_another_run(tables)
            time.sleep(2 * HEARTBEAT.total_seconds())
            assert Path(leases._file(tables, row.job, row.lease_id)).exists()

    with pytest.raises(AlreadyRunningError, match="daily: this run sent no heartbeat"):
        slept()
    assert folder_names(f"{tmp_path}/artifacts/leases") == []
    assert [row.lease_id for row in tables.ledger(LEASES)] == ["other"]


def test_a_ledger_that_cannot_be_read_for_a_moment_ends_no_run(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no answer")

    with held(tables, "daily"), monkeypatch.context() as patch:
        patch.setattr(FileTables, "ledger", unreachable)
        leases.check_held()


def test_an_error_that_is_not_the_store_s_is_raised_by_the_check(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a mistake in the code")

    with held(tables, "daily"), monkeypatch.context() as patch:
        patch.setattr(FileTables, "ledger", broken)
        with pytest.raises(TypeError, match="a mistake in the code"):
            leases.check_held()


def test_all_leases_of_a_root_are_checked_with_one_read(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = FileTables.ledger, []

    def counted(self: FileTables, *args: Any, **equal: str) -> Any:
        reads.append(args)
        return read(self, *args, **equal)

    with held(tables, "pipeline"), held(tables, "daily"):
        with monkeypatch.context() as patch:
            patch.setattr(FileTables, "ledger", counted)
            leases.check_held()
        assert len(reads) == 1


def test_a_run_in_a_thread_that_has_lost_its_lease_begins_no_stage_and_does_not_end_well(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    runs = Runs(tables, config_of(Path(tables.artifacts_root)))

    def slept_between_its_stages() -> None:
        with held(tables, "daily"):
            stages.append("first")
            taken_by_another_run(tables)
            with runs.stage("second"):
                stages.append("second")

    def slept_in_its_last_stage() -> None:
        with held(tables, "daily"):
            taken_by_another_run(tables)

    with ThreadPoolExecutor(1) as pool:
        for run in (slept_between_its_stages, slept_in_its_last_stage):
            with pytest.raises(AlreadyRunningError, match="daily: this run sent no heartbeat"):
                pool.submit(run).result(timeout=60)
            monkeypatch.setattr(leases, "_silence", lambda *_: None)  # its lease counts as free
    assert stages == ["first"]


def test_a_holder_whose_clock_is_behind_is_not_taken_for_dead(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def an_hour_ahead() -> datetime:
        return utc_now() + timedelta(hours=1)

    with holder(tmp_path):
        monkeypatch.setattr(leases, "utc_now", an_hour_ahead)
        with pytest.raises(AlreadyRunningError, match="last heartbeat 0 s ago"), held(tables, "daily"):
            pass


def test_of_many_that_begin_at_once_one_gets_the_lease(tables: Tables) -> None:
    begin, end = Barrier(6), Barrier(6)

    def run(_: int) -> bool:
        begin.wait()
        try:
            with held(tables, "daily"):
                end.wait()
                return True
        except AlreadyRunningError:
            end.wait()
            return False
        except BaseException:
            end.abort()  # the others must not wait for this thread
            raise

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(run, range(6))) == 1


def test_a_lease_is_given_back_when_the_job_fails(tables: Tables) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="its own"), held(tables, "daily"):
            raise ValueError("its own")
    assert tables.ledger(LEASES)[0].ended_at is not None


def test_a_run_that_is_always_second_fails_with_an_error(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileTables, "add", lambda *_, **__: False)
    monkeypatch.setattr("userrep.store.tables._LONGEST_PAUSE", 0)
    with (
        pytest.raises(UserrepError, match="leases: not changed, because other runs keep committing"),
        held(tables, "daily"),
    ):
        pass


def test_jobs_that_are_under_way_elsewhere_are_refused_and_write_nothing(
    spark: SparkSession, done: tuple[RunContext, Config]
) -> None:
    work, config = done
    again = RunContext(config, spark)
    jobs = {
        "pipeline": lambda: run_pipeline(again),
        "daily": lambda: daily.daily(again, on_time=True),
        "backfill": lambda: daily.backfill_stale(again),
        "forget": lambda: Erasure(work.tables, config, ["u1"]).run(now=False),
        "maintain_tables": lambda: run_job(again, "maintain_tables"),
    }
    for name, job in jobs.items():
        with held(work.tables, name):
            before = {table.name: work.tables.version(table) for table in schemas.ALL}
            with pytest.raises(AlreadyRunningError, match=f"{name} is already running"):
                job()
            assert {table.name: work.tables.version(table) for table in schemas.ALL} == before

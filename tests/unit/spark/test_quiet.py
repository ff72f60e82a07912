"""Notes of the JVM are kept off the terminal; what else it prints on stderr goes through."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from userrep.spark.quiet import filtered_stderr, silence_query_logger

pytestmark = pytest.mark.default

NOTES = [
    "WARNING: Using incubator modules: jdk.incubator.vector",
    "26/11/27 INFO netlib-blas: JNI_OnLoad",
    "netlib-lapack: JNI_OnLoad failed",
]


@pytest.fixture
def end_forwarding() -> Callable[[], None]:
    """Return a function that waits until what a test's processes have printed has reached the terminal.

    The shared Spark session has a thread of the same name, which lives as long as its JVM.
    """
    before = set(threading.enumerate())

    def end() -> None:
        for thread in set(threading.enumerate()) - before:
            if thread.name == "jvm-stderr":
                thread.join(timeout=60)
                assert not thread.is_alive()

    return end


def open_files() -> list[str]:
    """Return the pipes and the copies of the terminal that this process has open."""
    targets = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    terminal = os.readlink("/proc/self/fd/2")
    return sorted(target for target in targets if target.startswith("pipe:") or target == terminal)


def child(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def test_a_process_prints_all_but_the_notes_also_after_the_block_has_ended(
    capfd: pytest.CaptureFixture[str], end_forwarding: Callable[[], None]
) -> None:
    printed = ["first", *NOTES, "", "netlib-blas: another note", "last"]
    code = f"import sys; sys.stdin.read(); sys.stderr.write({chr(10).join(printed)!r} + chr(10))"
    with filtered_stderr():
        process = child(code)
    os.write(2, f"{NOTES[0]}, by this process\n".encode())
    process.communicate(b"")
    end_forwarding()
    own, *lines = capfd.readouterr().err.splitlines()
    assert own == f"{NOTES[0]}, by this process"
    assert lines == ["first", "", "netlib-blas: another note", "last"]


def test_stderr_is_given_back_and_no_file_stays_open(
    capfd: pytest.CaptureFixture[str], end_forwarding: Callable[[], None]
) -> None:
    def ended() -> None:
        with filtered_stderr():
            raise ValueError("Spark did not start")

    terminal, before = os.fstat(2), open_files()
    with pytest.raises(ValueError, match="Spark did not start"):
        ended()
    end_forwarding()
    assert os.path.samestat(os.fstat(2), terminal)
    assert open_files() == before
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"


def test_failed_queries_are_not_logged_as_json(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("DataFrameQueryContextLogger")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    silence_query_logger()
    logger.critical("a page of JSON")
    assert caplog.messages == []

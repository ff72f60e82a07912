"""Keep the JVM's unavoidable notes off the terminal; everything else that it says on stderr goes through."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Printed at every start by Java and by netlib's loader, whatever the log settings; neither is a fault.
_NOISE = (b"Using incubator modules: jdk.incubator.vector", b"netlib-blas: JNI_OnLoad", b"netlib-lapack: JNI_OnLoad")


def silence_query_logger() -> None:
    """Keep PySpark from printing a page of JSON for each query that fails; the exception says the same."""
    logging.getLogger("DataFrameQueryContextLogger").setLevel(logging.CRITICAL + 1)


@contextmanager
def filtered_stderr() -> Iterator[None]:
    """Give processes that start within the block a stderr without the notes; this process's own stays as it is.

    Their stdout is that stderr, too: Delta's VACUUM prints there, and a command's stdout holds its result alone.
    """
    terminal, stdout = os.dup(2), os.dup(1)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.dup2(write_end, 1)
    os.close(write_end)
    threading.Thread(target=_forward, args=(read_end, os.dup(terminal)), daemon=True, name="jvm-stderr").start()
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.dup2(stdout, 1)
        os.close(terminal)
        os.close(stdout)


def _forward(source: int, target: int) -> None:
    """Pass lines on until the last process that holds the pipe has ended."""
    with os.fdopen(source, "rb", closefd=True) as lines:
        for line in lines:
            if not any(note in line for note in _NOISE):
                os.write(target, line)
    os.close(target)

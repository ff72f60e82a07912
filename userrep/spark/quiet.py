"""Filters for unavoidable notes of the JVM on stderr; all other output of the JVM passes through."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Printed at every start by Java and by netlib's loader, whatever the log settings. They report no fault.
_NOISE = (b"Using incubator modules: jdk.incubator.vector", b"netlib-blas: JNI_OnLoad", b"netlib-lapack: JNI_OnLoad")


def silence_query_logger() -> None:
    """Stop PySpark from printing a page of JSON for each failed query; the exception has the same content."""
    logging.getLogger("DataFrameQueryContextLogger").setLevel(logging.CRITICAL + 1)


@contextmanager
def filtered_stderr() -> Iterator[None]:
    """Give processes that start within the block a filtered stderr; that of this process is unchanged.

    Their stdout goes to the same stderr, because Delta's VACUUM prints to stdout, which must have only a command's
    result.
    """
    saved = {number: os.dup(number) for number in (1, 2)}
    read_end, write_end = os.pipe()
    for number in saved:
        os.dup2(write_end, number)
    os.close(write_end)
    threading.Thread(target=_forward, args=(read_end, os.dup(saved[2])), daemon=True, name="jvm-stderr").start()
    try:
        yield
    finally:
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


def _forward(source: int, target: int) -> None:
    """Forward lines until the last process with an open pipe end has ended."""
    with os.fdopen(source, "rb") as lines:
        for line in lines:
            if not any(note in line for note in _NOISE):
                os.write(target, line)
    os.close(target)

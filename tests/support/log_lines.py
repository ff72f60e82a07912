"""The messages that userrep logs, for tests of them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from userrep.logs import text_of

_LOGGER = logging.getLogger("userrep")


class _Forwarder(logging.Handler):
    def __init__(self, function: Callable[[str], object]) -> None:
        super().__init__(logging.INFO)
        self._function = function

    def emit(self, record: logging.LogRecord) -> None:
        self._function(text_of(record))


@contextmanager
def messages_to(function: Callable[[str], object]) -> Iterator[None]:
    """Call a function with each message within the block. Its exceptions reach the code that logs."""
    forwarder, level = _Forwarder(function), _LOGGER.level
    _LOGGER.addHandler(forwarder)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOGGER.removeHandler(forwarder)
        _LOGGER.setLevel(level)

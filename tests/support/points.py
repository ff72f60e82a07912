"""The failpoints that a run in this process passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from userrep import failpoints


@contextmanager
def noted(notes: Path) -> Iterator[None]:
    """Write the points that are passed meanwhile to a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "_notes", str(notes))
        patch.setattr(failpoints, "_is_set", True)
        yield


def points_in(notes: Path) -> list[str]:
    """Return the points of such a file, in their order."""
    return notes.read_text(encoding="utf-8").splitlines()

"""Ranges of versions of a Delta log whose changes were read form one chain from version 0."""

import pytest

from userrep.tiles.inventory.changes import _chain

pytestmark = pytest.mark.fast


def test_ranges_of_versions_follow_each_other_whichever_run_read_them() -> None:
    assert _chain([]) == []
    assert _chain([(0, 3), (4, 5), (4, 7), (6, 6), (8, 8)]) == [(0, 3), (4, 7), (8, 8)]
    assert _chain([(0, 3), (4, 5), (0, 9)]) == [(0, 9)]


def test_the_chain_ends_at_the_first_version_that_no_range_begins_at() -> None:
    assert _chain([(0, 3), (5, 6)]) == [(0, 3)]
    assert _chain([(1, 3)]) == []

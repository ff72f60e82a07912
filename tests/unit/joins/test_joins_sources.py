"""Inputs of a join: the files of each snapshot, and the width of vectors."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.joins.sources import files_by_snapshot, usable_sources
from userrep.spaces.snapshots import EXPIRED
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

DAY, LATER = date(2024, 5, 1), date(2024, 5, 2)


def test_each_snapshot_has_its_files_and_an_expired_one_has_none(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a", "s002-b")
    publish(tables, {snapshot(DAY, state=EXPIRED): {"u": [0.0]}, snapshot(LATER): {"u": [1.0]}})
    publish(tables, {snapshot(LATER, space="s002-b"): {"u": [2.0]}})
    sources = usable_sources(tables, "s001-a")
    found = files_by_snapshot(tables, sources.version, sources.snapshots)
    assert [[file.path.rpartition("/")[0] for file in files] for files in found] == [
        [],
        ["space_id=s001-a/as_of=2024-05-02/revision=1"],
    ]


def test_the_width_is_that_of_any_gated_snapshot(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(DAY): {"u": [0.0]}})
    sources = usable_sources(tables, "s001-a")
    assert sources.dim is None
    assert replace(sources, snapshots=[snapshot(DAY), snapshot(LATER, dim=3)]).dim == 3

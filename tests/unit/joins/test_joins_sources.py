"""Inputs of a join: the files of each step, and the width of vectors."""

from datetime import date, datetime
from pathlib import Path

import pytest

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.joins.snapshot_at import Step, steps_of
from userrep.joins.sources import dim_of, files_by_step, sources_of
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import EXPIRED
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

DAY, LATER = date(2024, 5, 1), date(2024, 5, 2)


def test_each_step_has_the_files_of_its_snapshot_and_an_expired_one_has_none(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a", "s002-b")
    publish(tables, {snapshot(DAY, state=EXPIRED): {"u": [0.0]}, snapshot(LATER): {"u": [1.0]}})
    publish(tables, {snapshot(LATER, space="s002-b"): {"u": [2.0]}})
    sources = sources_of(tables, find_space(tables, "s001-a"))
    steps = steps_of(sources.snapshots, "ledger")
    found = files_by_step(tables, sources, steps)
    assert [[file.path.rpartition("/")[0] for file in files] for files in found] == [
        [],
        ["space_id=s001-a/as_of=2024-05-02/revision=1"],
    ]


def test_the_width_is_that_of_any_gated_snapshot() -> None:
    at = datetime(2024, 5, 1)
    assert dim_of([Step(at, snapshot(DAY)), Step(at, snapshot(LATER, dim=3))]) == 3
    assert dim_of([Step(at, snapshot(DAY))]) is None

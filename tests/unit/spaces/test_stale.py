"""Published as-of dates that are stale: those of spaces of the configuration's lineage only."""

from datetime import date
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.items.versions import lineage_of
from userrep.spaces.registry import add_candidate
from userrep.spaces.snapshots import record_snapshots
from userrep.spaces.stale import stale_dates
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

DAY = date(2024, 5, 1)


def test_only_spaces_of_the_lineage_with_snapshots_have_dates_that_can_be_stale(tmp_path: Path) -> None:
    tables, config = FileTables(None, str(tmp_path / "root")), config_of(tmp_path)
    lineage_id = lineage_of(config)
    assert stale_dates(tables, config) == {}
    add_spaces(tables, "s1")  # of another lineage
    for space in ("s2", "s3"):
        add_candidate(tables, space_id=space, lineage_id=lineage_id, trained_until=DAY, content_hash="none")
    record_snapshots(tables, [snapshot(DAY, space="s1"), snapshot(DAY, space="s2")])
    assert stale_dates(tables, config) == {"s2": [DAY]}, "nothing is known of the features that it was made from"

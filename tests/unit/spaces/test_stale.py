"""Published as-of dates that are stale: those of spaces of the configuration's lineage only."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.features.ledger import FeatureSet
from userrep.items.versions import lineage_of
from userrep.spaces import stale
from userrep.spaces.registry import Space, add_candidate
from userrep.spaces.snapshots import Snapshot, record_snapshots, snapshot_inputs
from userrep.spaces.stale import stale_dates, stale_snapshots
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

DAY = date(2024, 5, 1)
NOW = datetime(2024, 5, 1)


def test_only_spaces_of_the_lineage_with_snapshots_have_dates_that_can_be_stale(tmp_path: Path) -> None:
    tables, config = FileTables(None, str(tmp_path / "root")), config_of(tmp_path)
    lineage_id = lineage_of(config)
    assert stale_dates(tables, config) == {}
    add_spaces(tables, "s1")  # of another lineage
    for space in ("s2", "s3"):
        add_candidate(tables, space_id=space, lineage_id=lineage_id, trained_until=DAY, content_hash="none")
    record_snapshots(tables, [snapshot(DAY, space="s1"), snapshot(DAY, space="s2")])
    assert stale_dates(tables, config) == {"s2": [DAY]}, "nothing is known of the features that it was made from"


def test_a_date_is_stale_if_its_newest_revision_was_made_from_other_inputs() -> None:
    space = Space("s001-a", "ready", "l1", DAY, "artifact", NOW, NOW)
    d1, d2, d3, d4 = (DAY + timedelta(days=k) for k in range(4))

    def features(log_hash: str) -> FeatureSet:
        return FeatureSet(d1, log_hash, "x", 2, 0)

    def made_from(day: date, revision: int, log_hash: str) -> Snapshot:
        return replace(snapshot(day, revision), inputs_hash=snapshot_inputs(space, features(log_hash)))

    published = [
        made_from(d1, 1, "old"), made_from(d1, 2, "new"), made_from(d2, 1, "new"), made_from(d2, 2, "old"),
        made_from(d3, 1, "new"), made_from(d4, 1, "new"),
    ]  # fmt: skip
    sets = dict.fromkeys((d1, d2, d4), features("new"))
    assert stale_snapshots(published, space, sets, {d3}) == [d2, d3]
    assert stale_snapshots(published, space, {}, ()) == sorted(
        {s.as_of for s in published}
    )  # another run has built them since
    assert stale_snapshots(published[:2], replace(space, content_hash="another"), sets, ()) == [d1]


def test_a_date_whose_newest_revision_is_of_other_features_has_no_snapshot_of_the_present_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = Space("s001-a", "ready", "l1", DAY, "artifact", NOW, NOW)
    good, bad = FeatureSet(DAY, "good", "x", 2, 0), FeatureSet(DAY, "bad", "x", 2, 0)
    made = [replace(snapshot(DAY, k), inputs_hash=snapshot_inputs(space, of)) for k, of in ((1, good), (2, bad))]
    tables = FileTables(None, "unused")
    monkeypatch.setattr(stale, "list_snapshots", lambda *_, **__: made)
    monkeypatch.setattr(stale, "feature_sets", lambda *_: {DAY: good})  # the log was bad for a while
    assert stale.without_snapshot(tables, space, [DAY], "published") == [DAY]
    monkeypatch.setattr(stale, "feature_sets", lambda *_: {DAY: bad})
    assert stale.without_snapshot(tables, space, [DAY], "published") == []

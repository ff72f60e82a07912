"""As-of dates without a snapshot of the current log: never built, or changed by late or corrected events."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from userrep.config import Config
from userrep.features.ledger import FeatureSet, feature_sets, stale_features
from userrep.items.versions import lineage_of, versions_of
from userrep.spaces.registry import Space, list_spaces
from userrep.spaces.snapshots import Snapshot, list_snapshots, snapshot_inputs
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, tile_ledger


def stale_dates(tables: Tables, config: Config, ledger: TileLedger | None = None) -> dict[str, list[date]]:
    """Return, for each space of this configuration's lineage, the published as-of dates whose log has changed since.

    ``ledger``: the tile ledger pinned by the run; by default, the newest. A late or corrected day counts once its tiles
    are rebuilt, which every run does. Cost: a few ledger reads.
    """
    lineage_id, ledger = lineage_of(config), ledger or tile_ledger(tables)
    dates_by_space = {}
    sets = feature_sets(tables, lineage_id)
    for space in list_spaces(tables):
        published = list_snapshots(tables, space.space_id) if space.lineage_id == lineage_id else []
        if published:
            versions = versions_of(tables, config, anchor=space.trained_until)
            dates = sorted({snapshot.as_of for snapshot in published})
            stale = stale_features(tables, config, versions, dates, profile_hashes={}, ledger=ledger)
            dates_by_space[space.space_id] = stale_snapshots(published, space, sets, stale)
    return dates_by_space


def stale_snapshots(
    published: Sequence[Snapshot], space: Space, sets: Mapping[date, FeatureSet], stale: Collection[date]
) -> list[date]:
    """Return the published as-of dates whose newest revision was not built from the log as it is known now.

    ``published``: in order of revisions. ``sets``: features that were read before; another run may have built some
    since. ``stale``: dates whose features are missing or stale.
    """
    newest = {snapshot.as_of: snapshot for snapshot in published}
    return sorted(
        as_of
        for as_of, snapshot in newest.items()
        if as_of in stale or as_of not in sets or snapshot.inputs_hash != snapshot_inputs(space, sets[as_of])
    )


def without_snapshot(tables: Tables, space: Space, as_ofs: Sequence[date], *states: str) -> list[date]:
    """Return the dates whose newest revision in these states is missing or not of the current features.

    An older revision of the current features does not count: readers get the newest one.
    """
    sets = feature_sets(tables, space.lineage_id)
    newest = {s.as_of: s.inputs_hash for s in list_snapshots(tables, space.space_id, states=states)}
    return [day for day in as_ofs if day not in sets or newest.get(day) != snapshot_inputs(space, sets[day])]

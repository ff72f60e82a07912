"""As-of dates that were published and have changed since, by late or corrected events."""

from datetime import date

from userrep.config import Config
from userrep.features.build import feature_sets, stale_features
from userrep.items.versions import lineage_of, versions_of
from userrep.spaces.registry import list_spaces
from userrep.spaces.snapshots import list_snapshots, stale_snapshots
from userrep.store.tables import Tables


def stale_dates(tables: Tables, config: Config) -> dict[str, list[date]]:
    """Return, per space of this configuration, the published as-of dates that the log has changed under.

    Late or corrected days show once their tiles are rebuilt, which every run does. Cost: a few reads of ledgers.
    """
    lineage_id = lineage_of(config)
    found = {}
    sets = feature_sets(tables, lineage_id)
    for space in list_spaces(tables):
        published = list_snapshots(tables, space.space_id) if space.lineage_id == lineage_id else []
        if published:
            versions = versions_of(tables, config, anchor=space.trained_until)
            stale = stale_features(tables, config, versions, sorted({s.as_of for s in published}))
            found[space.space_id] = stale_snapshots(published, space, sets, stale)
    return found

"""The ledger of ``user_features``: which as-of dates are built, from which inputs, and which builds are stale."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from userrep.config import Config
from userrep.errors import UsageError, shortened
from userrep.features.spec import FeatureSpec
from userrep.ids import short_hash
from userrep.items.versions import Versions
from userrep.store.buckets import NUM_BUCKETS, buckets_of_share
from userrep.store.schemas import FEATURE_SETS, USER_FEATURES, TableSchema, user_features
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, days_fingerprint, tile_ledger


class FeatureSet(NamedTuple):
    """One build of the features of an as-of date. ``hash`` identifies the inputs of the build.

    ``num_buckets``: the features are those of the users in buckets below this number; ``NUM_BUCKETS`` for all users.
    """

    as_of: date
    log_hash: str
    profiles_hash: str
    num_users: int
    num_inexact: int
    num_buckets: int = NUM_BUCKETS

    @property
    def hash(self) -> str:
        return short_hash([self.log_hash, self.profiles_hash])


def feature_sets(tables: Tables, lineage_id: str, *, sampled: bool = False) -> dict[date, FeatureSet]:
    """Return the completed build of each as-of date, without builds in progress. Driver memory: one entry per date.

    ``sampled``: also return the dates whose features were only built for a sample of the users, to train on.
    """
    rows = [row for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id) if row.begun_by is None]
    return {
        r.as_of: FeatureSet(r.as_of, r.log_hash, r.sides_hash, r.num_users, r.num_inexact, r.num_buckets or NUM_BUCKETS)
        for r in rows
        if sampled or r.num_buckets is None
    }


def sample_of(sets: Iterable[FeatureSet], *, max_rows: int) -> int:
    """Return the number of buckets whose users have about ``max_rows`` rows; all buckets if all users have fewer.

    ``sets``: the features of the dates that rows are taken from; those of a sample are extrapolated to all users.
    """
    return buckets_of_share(max_rows / max(1, sum(built.num_users * NUM_BUCKETS / built.num_buckets for built in sets)))


def built_sets(tables: Tables, lineage_id: str, as_ofs: Iterable[date]) -> dict[date, FeatureSet]:
    """Return the builds of these dates, also those of samples. Raises UsageError if one of the dates is not built."""
    sets, needed = feature_sets(tables, lineage_id, sampled=True), {*as_ofs}
    if missing := sorted(needed - sets.keys()):
        raise UsageError(
            f"training: no features of {shortened(missing)}. Build them with `userrep run build_user_features "
            "--retrain`, with the --as-of of the training."
        )
    return {day: built for day, built in sets.items() if day in needed}


def with_futures(as_ofs: Iterable[date], future_days: Sequence[int]) -> set[date]:
    """Return the as-of dates and the dates on which their futures end."""
    return {as_of + timedelta(days=days) for as_of in as_ofs for days in (0, *future_days)}


def stale_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_ofs: Sequence[date],
    *,
    profile_hashes: Mapping[date, str],
    ledger: TileLedger | None = None,
    num_buckets: int = NUM_BUCKETS,
) -> dict[date, str]:
    """Return the as-of dates whose features are missing or were built from other inputs, with the reason.

    ``ledger``: the tile ledger pinned by the run; by default, the newest. ``profile_hashes``: fingerprint of the user
    profiles, for the dates that must also reflect changed users and picks. Other dates ignore such changes: history
    stays as it was published. ``num_buckets``: the buckets of the users whose features are needed; by default, all.
    """
    built = feature_sets(tables, versions.lineage_id, sampled=True)
    days = (ledger or tile_ledger(tables)).latest
    reasons = {}
    for as_of in as_ofs:
        if as_of not in built:
            reasons[as_of] = "not built yet"
        elif built[as_of].num_buckets < num_buckets:
            reasons[as_of] = "built for a sample of the users"
        elif built[as_of].log_hash != log_hash(days, config, versions, as_of):
            reasons[as_of] = "days of the log or item vectors changed"
        elif as_of in profile_hashes and built[as_of].profiles_hash != profile_hashes[as_of]:
            reasons[as_of] = "users or picks changed"
    return reasons


def log_hash(days: dict[date, tuple[str, int]], config: Config, versions: Versions, as_of: date) -> str:
    """Hash the tile days of the windows and the item-vector version that an as-of date is built from."""
    start = as_of - timedelta(days=FeatureSpec.of(config).span)
    version = versions.valid_at(as_of)
    return short_hash([days_fingerprint(days, start=start, end=as_of), str(version)])


def features_table(config: Config, lineage_id: str) -> TableSchema:
    """Return the schema of a lineage's feature table."""
    return user_features(lineage_id, FeatureSpec.of(config).ddl())


def features_tables(tables: Tables) -> list[TableSchema]:
    """Return the schemas of the feature tables of all lineages, as stored."""
    schemas = []
    stored = [name for name in tables.stored() if name.startswith(USER_FEATURES)]
    for lineage_id in (name.removeprefix(USER_FEATURES) for name in stored):
        columns = tables.fields(user_features(lineage_id, "")).fields[2:]  # without as_of and user_id
        ddl = [f"{column.name} {column.dataType.simpleString().upper()}" for column in columns]
        schemas.append(user_features(lineage_id, ", ".join(ddl)))
    return schemas

"""The drift gate: how far a snapshot moved from the previous one, compared with configured limits.

Drift is measured on the users in the lowest buckets, a sample that is the same at every date and can be read without
the rest of the snapshot. For every metric, higher is worse. A space does not change once it is trained, so drift comes
from its inputs.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date

from pyspark.sql import Column
from pyspark.sql import functions as F

from userrep.config import Config, DriftLimits
from userrep.errors import UsageError
from userrep.features.build import feature_sets, stored_features
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.monitoring.input_drift import compare_inputs
from userrep.monitoring.vector_drift import Metrics, Parts, compare_moments, measure_moments
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import PUBLISHED, STAGED, Snapshot, list_snapshots
from userrep.store.buckets import buckets_of_share, user_bucket
from userrep.store.schemas import SNAPSHOT_DRIFT, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.utc import utc_now

OK, WARN, FAIL = "ok", "warn", "fail"
_NEIGHBOURS_AMONG = 2_000  # users whose nearest neighbors the driver computes


@dataclass(frozen=True)
class Drift:
    """Drift metrics of a snapshot compared with the one ``before``.

    ``parts``: by metric, its values for each dimension, input or block. ``outcomes``: by metric, OK, WARN or FAIL.
    ``is_new``: measured by this run, not read from ``snapshot_drift``.
    """

    snapshot: Snapshot
    before: Snapshot
    metrics: Metrics
    parts: Parts
    outcomes: dict[str, str]
    is_new: bool

    def said(self, outcome: str) -> list[str]:
        """Describe the metrics with an outcome: name, value, and the part that moved most."""
        names = [name for name, metric_outcome in self.outcomes.items() if metric_outcome == outcome]
        return [f"{name} {self.metrics[name]:.3f}" + self._worst(name) for name in names]

    def _worst(self, metric: str) -> str:
        parts = self.parts.get(metric)
        return f" ({max(parts, key=lambda part: parts[part])})" if parts else ""


def measure_drift(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> Drift | None:
    """Compare a staged or published snapshot with the published one of the date before; None if no such date exists.

    Metrics are recorded in ``snapshot_drift``. Snapshots do not change, so recorded metrics are not measured again, but
    the current limits are applied to them.

    Cost of measuring: a read of ``drift.sample_users`` vectors of both snapshots and a shuffle of them by user; two
    reads of the features, of which only the sample passes through encoder and decoder. Driver memory: D x D numbers per
    task, and about 2,000 vectors of each snapshot.

    Raises
    ------
    UsageError
        If the sample has no user of one of the snapshots.
    """
    earlier = [s for s in list_snapshots(tables, space.space_id) if s.as_of < snapshot.as_of]
    if not earlier:
        return None
    before = earlier[-1]
    measured = _recorded(tables, snapshot, before)
    if measured is None:
        measured = Drift(snapshot, before, *_measure(tables, config, space, snapshot, before), {}, is_new=True)
    drift = replace(measured, outcomes=_outcomes(config, measured.metrics))
    if drift.outcomes != measured.outcomes:
        _record(tables, drift)
    return drift


def _recorded(tables: Tables, snapshot: Snapshot, before: Snapshot) -> Drift | None:
    """Return the metrics that an earlier run recorded for these snapshots; None if some metric is missing."""
    rows = tables.ledger(SNAPSHOT_DRIFT, snapshot_id=snapshot.snapshot_id, before_id=before.snapshot_id)
    wholes = {row.metric: row for row in rows if not row.part}
    if not set(DriftLimits.model_fields) <= set(wholes):
        return None
    parts: Parts = defaultdict(dict)
    for row in rows:
        if row.part:
            parts[row.metric][row.part] = row.value
    metrics = {name: row.value for name, row in wholes.items()}
    return Drift(snapshot, before, metrics, parts, {name: row.outcome for name, row in wholes.items()}, is_new=False)


def newest_measurable(tables: Tables, space: Space, as_of: date) -> Snapshot:
    """Return the newest staged or published revision of a date. Raises UsageError if no such revision exists."""
    snapshots = [s for s in list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED)) if s.as_of == as_of]
    if not snapshots:
        raise UsageError(
            f"space {space.space_id} has no staged or published snapshot of {as_of}. Build it with `userrep run "
            f"embed_users --as-of {as_of}`."
        )
    return snapshots[-1]


def _measure(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, before: Snapshot
) -> tuple[Metrics, Parts]:
    metrics, parts = _compare_vectors(tables, config, snapshot, before)
    input_metrics, input_parts = _compare_inputs(tables, config, space, snapshot, before)
    metrics |= input_metrics | {"rows_change": abs(snapshot.num_users / max(1, before.num_users) - 1)}
    return metrics, parts | input_parts


def _compare_vectors(tables: Tables, config: Config, now: Snapshot, before: Snapshot) -> tuple[Metrics, Parts]:
    a, b = (
        tables.read(USER_EMBEDDINGS).where(snapshot.where).where(_in_sample(config, now, before))
        for snapshot in (now, before)
    )
    both_moments = measure_moments(a, b, neighbours_below=_num_buckets(_NEIGHBOURS_AMONG, now, before))
    for moments, snapshot in zip(both_moments, (now, before), strict=True):
        if not moments.num_rows:
            raise UsageError(
                f"drift: the sample has no user of {snapshot.snapshot_id}, got drift.sample_users "
                f"{config.drift.sample_users}. Set it higher."
            )
    return compare_moments(*both_moments)


def _compare_inputs(
    tables: Tables, config: Config, space: Space, now: Snapshot, before: Snapshot
) -> tuple[Metrics, Parts]:
    """Compare inputs. Returns nothing if a date has no features, or if the space belongs to another configuration."""
    dates = [now.as_of, before.as_of]
    if space.lineage_id != lineage_of(config) or not set(dates) <= set(feature_sets(tables, space.lineage_id)):
        return {}, {}
    features = stored_features(tables, config, space.lineage_id, dates).withColumn("user_bucket", user_bucket())
    return compare_inputs(
        features.where(_in_sample(config, now, before)),
        now=now.as_of,
        before=before.as_of,
        spec=FeatureSpec.of(config),
        folder=artifact_folder(config, space),
        content_hash=space.content_hash,
    )


def _in_sample(config: Config, now: Snapshot, before: Snapshot) -> Column:
    return F.col("user_bucket") < _num_buckets(config.drift.sample_users, now, before)


def _num_buckets(num_users: int, now: Snapshot, before: Snapshot) -> int:
    """Return the number of buckets that contain about ``num_users`` users of the larger snapshot."""
    return buckets_of_share(num_users / max(now.num_users, before.num_users, 1))


def _outcomes(config: Config, metrics: dict[str, float]) -> dict[str, str]:
    warn, fail = config.drift.warn.model_dump(), config.drift.fail.model_dump()

    def outcome(name: str, value: float) -> str:
        if fail[name] is not None and value > fail[name]:
            return FAIL
        return WARN if warn[name] is not None and value > warn[name] else OK

    return {name: outcome(name, value) for name, value in metrics.items()}


def _record(tables: Tables, drift: Drift) -> None:
    common = {
        "snapshot_id": drift.snapshot.snapshot_id, "space_id": drift.snapshot.space_id, "as_of": drift.snapshot.as_of,
        "before_id": drift.before.snapshot_id, "measured_at": utc_now(),
    }  # fmt: skip
    rows = [
        {**common, "metric": name, "part": "", "value": value, "outcome": drift.outcomes[name]}
        for name, value in drift.metrics.items()
    ]
    rows += [
        {**common, "metric": name, "part": part, "value": value, "outcome": None}
        for name, values in drift.parts.items()
        for part, value in values.items()
    ]
    tables.add(SNAPSHOT_DRIFT, rows, replacing=f"snapshot_id = '{drift.snapshot.snapshot_id}'")

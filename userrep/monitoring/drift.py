"""The drift gate: how far a snapshot moved from the previous one, compared with configured limits.

Drift is measured on the users in the lowest buckets, a sample that is the same at every date and can be read without
the rest of the snapshot. For every metric, higher is worse. A space does not change once it is trained, so drift comes
from its inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark.sql import functions as F

from userrep.config import Config, Drift, DriftLimits
from userrep.errors import UsageError
from userrep.features.build import stored_features
from userrep.features.ledger import feature_sets
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.monitoring.input_drift import compare_inputs
from userrep.monitoring.vector_drift import Metrics, Parts, compare_moments, measure_moments
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.bucket_reader import rows_below
from userrep.store.buckets import buckets_of_share, user_bucket
from userrep.store.schemas import SNAPSHOT_DRIFT, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.utc import utc_now

OK, WARN, FAIL = "ok", "warn", "fail"
_NEIGHBOURS_AMONG = 2_000  # users whose nearest neighbors the driver computes
_VECTORS = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class MeasuredDrift:
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

    def describe(self, outcome: str) -> list[str]:
        """Describe the metrics with an outcome: name, value, and the part that moved most."""
        names = [name for name, metric_outcome in self.outcomes.items() if metric_outcome == outcome]
        return [f"{name} {self.metrics[name]:.3f}" + self._worst(name) for name in names]

    def _worst(self, metric: str) -> str:
        parts = self.parts.get(metric)
        return f" ({max(parts, key=lambda part: parts[part])})" if parts else ""


def measure_drift(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> MeasuredDrift | None:
    """Compare a staged or published snapshot with the published one of the date before; None if no such date exists.

    Metrics are recorded in ``snapshot_drift`` and measured again only if the snapshot was built again. The current
    limits are applied to recorded metrics.

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
    drift = _recorded(tables, snapshot, before) or MeasuredDrift(
        snapshot, before, *_measure(tables, config, space, snapshot, before), {}, is_new=True
    )
    outcomes = {name: _outcome(config.drift, name, value) for name, value in drift.metrics.items()}
    if outcomes != drift.outcomes:
        drift = replace(drift, outcomes=outcomes)
        _record(tables, drift)
    return drift


def failed_drift(tables: Tables, config: Config, space: Space, staged: Sequence[Snapshot]) -> dict[str, list[str]]:
    """Return, by snapshot id, the recorded metrics of staged snapshots that are past ``drift.fail``.

    Snapshots whose drift was never measured are left out. Cost: one read of a ledger.
    """
    computed_at = {snapshot.snapshot_id: snapshot.computed_at for snapshot in staged}
    failed: dict[str, list[str]] = {}
    for row in tables.ledger(SNAPSHOT_DRIFT, space_id=space.space_id):
        is_of_staged = row.snapshot_id in computed_at and row.measured_at >= computed_at[row.snapshot_id]
        if is_of_staged and not row.part and _outcome(config.drift, row.metric, row.value) == FAIL:
            failed.setdefault(row.snapshot_id, []).append(f"{row.metric} {row.value:.3f}")
    return failed


def _recorded(tables: Tables, snapshot: Snapshot, before: Snapshot) -> MeasuredDrift | None:
    """Return the metrics that an earlier run recorded for these snapshots; None if some metric is missing.

    A staged snapshot that is built again keeps its id: metrics that were measured before are those of other vectors.
    """
    recorded = tables.ledger(SNAPSHOT_DRIFT, snapshot_id=snapshot.snapshot_id, before_id=before.snapshot_id)
    rows = [row for row in recorded if row.measured_at >= snapshot.computed_at]
    metrics = {row.metric: row.value for row in rows if not row.part}
    if not set(DriftLimits.model_fields) <= set(metrics):
        return None
    outcomes = {row.metric: row.outcome for row in rows if not row.part}
    parts: Parts = {}
    for row in (row for row in rows if row.part):
        parts.setdefault(row.metric, {})[row.part] = row.value
    return MeasuredDrift(snapshot, before, metrics, parts, outcomes, is_new=False)


def _measure(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, before: Snapshot
) -> tuple[Metrics, Parts]:
    """Measure the vectors, and the inputs if both dates have features and the space is of this configuration."""
    num_sampled = config.drift.sample_users
    in_sample = F.col("user_bucket") < _num_buckets(num_sampled, snapshot, before)
    few = _num_buckets(min(num_sampled, _NEIGHBOURS_AMONG), snapshot, before)
    vectors = [tables.read(USER_EMBEDDINGS, [s.key]).where(in_sample) for s in (snapshot, before)]
    some = [
        rows_below(few, tables, USER_EMBEDDINGS, [s.key], _VECTORS.names).cast(_VECTORS) for s in (snapshot, before)
    ]
    both_moments = measure_moments(*vectors, *some)
    for moments, sampled in zip(both_moments, (snapshot, before), strict=True):
        if not moments.num_rows:
            raise UsageError(
                f"drift: the sample has no user of snapshot {sampled.snapshot_id}. Raise drift.sample_users, which is "
                f"{config.drift.sample_users}."
            )
    metrics, parts = compare_moments(*both_moments)
    metrics["rows_change"] = abs(snapshot.num_users / max(1, before.num_users) - 1)
    dates = [snapshot.as_of, before.as_of]
    if space.lineage_id != lineage_of(config) or not set(dates) <= set(feature_sets(tables, space.lineage_id)):
        return metrics, parts
    features = stored_features(tables, config, space.lineage_id, dates).withColumn("user_bucket", user_bucket())
    input_metrics, input_parts = compare_inputs(
        features.where(in_sample),
        now=snapshot.as_of,
        before=before.as_of,
        spec=FeatureSpec.of(config),
        folder=artifact_folder(tables, space),
        content_hash=space.content_hash,
    )
    return metrics | input_metrics, parts | input_parts


def _num_buckets(num_users: int, now: Snapshot, before: Snapshot) -> int:
    """Return the number of buckets that contain about ``num_users`` users of the larger snapshot."""
    return buckets_of_share(num_users / max(now.num_users, before.num_users, 1))


def _outcome(limits: Drift, metric: str, value: float) -> str:
    by_outcome = {FAIL: getattr(limits.fail, metric), WARN: getattr(limits.warn, metric)}
    return next((outcome for outcome, limit in by_outcome.items() if limit is not None and value > limit), OK)


def _record(tables: Tables, drift: MeasuredDrift) -> None:
    common = {
        "snapshot_id": drift.snapshot.snapshot_id, "space_id": drift.snapshot.space_id, "as_of": drift.snapshot.as_of,
        "before_id": drift.before.snapshot_id, "measured_at": utc_now(),
    }  # fmt: skip
    wholes = [(metric, "", value, drift.outcomes[metric]) for metric, value in drift.metrics.items()]
    parts = [(metric, *part, None) for metric, values in drift.parts.items() for part in values.items()]
    columns = ("metric", "part", "value", "outcome")
    rows = [common | dict(zip(columns, row, strict=True)) for row in (*wholes, *parts)]
    tables.add(SNAPSHOT_DRIFT, rows, replacing=f"snapshot_id = '{drift.snapshot.snapshot_id}'")

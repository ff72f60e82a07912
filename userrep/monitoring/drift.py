"""How far a snapshot has moved from the one before it, and whether that is too far.

Measured on a fixed sample of users, those of the lowest user buckets, which is the same at every date and read without
the rest of the snapshot. All metrics grow with what is wrong; a space does not move by itself, so what moves are its
inputs.
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
from userrep.monitoring.input_drift import compared_inputs
from userrep.monitoring.vector_drift import Metrics, Parts, compared, moments
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import PUBLISHED, STAGED, Snapshot, list_snapshots
from userrep.store.buckets import buckets_of_share, user_bucket
from userrep.store.schemas import SNAPSHOT_DRIFT, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.utc import utc_now

OK, WARN, FAIL = "ok", "warn", "fail"
_NEIGHBOURS_AMONG = 2_000  # users, on the driver


@dataclass(frozen=True)
class Drift:
    """What was measured of a snapshot against the one ``before``.

    ``parts``: by metric, of dimensions or inputs. ``is_new``: this run has measured it.
    """

    snapshot: Snapshot
    before: Snapshot
    metrics: Metrics
    parts: Parts
    outcomes: dict[str, str]
    is_new: bool

    def said(self, outcome: str) -> list[str]:
        """Say which metrics have an outcome, and how far they went."""
        names = [name for name, of in self.outcomes.items() if of == outcome]
        return [f"{name} {self.metrics[name]:.3f}" + self._worst(name) for name in names]

    def _worst(self, metric: str) -> str:
        parts = self.parts.get(metric)
        return f" ({max(parts, key=lambda part: parts[part])})" if parts else ""


def measure_drift(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> Drift | None:
    """Compare a snapshot, staged or published, with the published one of the date before it; None if there is none.

    What is found goes to ``snapshot_drift``. What is there already is judged by the limits as they are now, and not
    measured again: neither snapshot changes. Cost, the first time: a read of ``drift.sample_users`` vectors of both
    snapshots and a shuffle of them by user; two passes over the inputs of both dates, of which those of the sample go
    through encoder and decoder. Driver memory: D x D numbers a task, and 2,000 users.
    """
    earlier = [s for s in list_snapshots(tables, space.space_id) if s.as_of < snapshot.as_of]
    if not earlier:
        return None
    found = _kept(tables, snapshot, earlier[-1])
    if found is None:
        found = Drift(snapshot, earlier[-1], *_measured(tables, config, space, snapshot, earlier[-1]), {}, is_new=True)
    drift = replace(found, outcomes=_judged(config, found.metrics))
    if drift.outcomes != found.outcomes:
        _record(tables, drift)
    return drift


def _kept(tables: Tables, snapshot: Snapshot, before: Snapshot) -> Drift | None:
    """Return what an earlier run has measured of these two; None where not all metrics are there."""
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
    """Return the newest revision of a date that is staged or published. Raises UsageError if there is none."""
    found = [s for s in list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED)) if s.as_of == as_of]
    if not found:
        raise UsageError(
            f"space {space.space_id} has no snapshot of {as_of}: `userrep run embed_users --as-of {as_of}` makes it."
        )
    return found[-1]


def _measured(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, before: Snapshot
) -> tuple[Metrics, Parts]:
    metrics, parts = _vectors_compared(tables, config, snapshot, before)
    changed, of_inputs = _inputs_compared(tables, config, space, snapshot, before)
    metrics |= changed | {"rows_change": abs(snapshot.num_users / max(1, before.num_users) - 1)}
    return metrics, parts | of_inputs


def _vectors_compared(tables: Tables, config: Config, now: Snapshot, before: Snapshot) -> tuple[Metrics, Parts]:
    a, b = (
        tables.read(USER_EMBEDDINGS).where(snapshot.where).where(_in_sample(config, now, before))
        for snapshot in (now, before)
    )
    found = moments(a, b, neighbours_below=_buckets_of(_NEIGHBOURS_AMONG, now, before))
    for of, snapshot in zip(found, (now, before), strict=True):
        if not of.num_rows:
            raise UsageError(
                f"drift: no user of {snapshot.snapshot_id} is in the sample; set drift.sample_users higher."
            )
    return compared(*found)


def _inputs_compared(
    tables: Tables, config: Config, space: Space, now: Snapshot, before: Snapshot
) -> tuple[Metrics, Parts]:
    """Compare inputs: nothing where a date has no features, or the space has those of another configuration."""
    dates = [now.as_of, before.as_of]
    if space.lineage_id != lineage_of(config) or not set(dates) <= set(feature_sets(tables, space.lineage_id)):
        return {}, {}
    features = stored_features(tables, config, space.lineage_id, dates).withColumn("user_bucket", user_bucket())
    return compared_inputs(
        features.where(_in_sample(config, now, before)),
        now=now.as_of,
        before=before.as_of,
        spec=FeatureSpec.of(config),
        folder=artifact_folder(config, space),
        content_hash=space.content_hash,
    )


def _in_sample(config: Config, now: Snapshot, before: Snapshot) -> Column:
    return F.col("user_bucket") < _buckets_of(config.drift.sample_users, now, before)


def _buckets_of(num_users: int, now: Snapshot, before: Snapshot) -> int:
    """Return how many buckets hold about so many of the users."""
    return buckets_of_share(num_users / max(now.num_users, before.num_users, 1))


def _judged(config: Config, metrics: dict[str, float]) -> dict[str, str]:
    warn, fail = config.drift.warn.model_dump(), config.drift.fail.model_dump()

    def outcome(name: str, value: float) -> str:
        if fail[name] is not None and value > fail[name]:
            return FAIL
        return WARN if warn[name] is not None and value > warn[name] else OK

    return {name: outcome(name, value) for name, value in metrics.items()}


def _record(tables: Tables, drift: Drift) -> None:
    about = {
        "snapshot_id": drift.snapshot.snapshot_id, "space_id": drift.snapshot.space_id, "as_of": drift.snapshot.as_of,
        "before_id": drift.before.snapshot_id, "measured_at": utc_now(),
    }  # fmt: skip
    rows = [
        {**about, "metric": name, "part": "", "value": value, "outcome": drift.outcomes[name]}
        for name, value in drift.metrics.items()
    ]
    rows += [
        {**about, "metric": name, "part": part, "value": value, "outcome": None}
        for name, values in drift.parts.items()
        for part, value in values.items()
    ]
    tables.add(SNAPSHOT_DRIFT, rows, replacing=f"snapshot_id = '{drift.snapshot.snapshot_id}'")

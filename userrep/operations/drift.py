"""How far a snapshot has moved from the one before it, and whether that is too far.

Measured on a fixed sample of users, those of the lowest user buckets, which is the same at every date and read without
the rest of the snapshot. All metrics grow with what is wrong; a space does not move by itself, so what moves are its
inputs. Population stability index: Siddiqi, Credit Risk Scorecards (2006); effective rank: Roy and Vetterli (2007).

Shapes: D dimensions, N users of the sample.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.arrow import stacked
from userrep.config import Config
from userrep.errors import UsageError
from userrep.events.buckets import NUM_BUCKETS, user_bucket
from userrep.features.build import feature_sets, stored_features
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.operations.reconstruction import reconstruction_errors
from userrep.operations.stability import stability
from userrep.schemas import SNAPSHOT_DRIFT, USER_EMBEDDINGS
from userrep.spaces.agreement import shared_neighbours
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import PUBLISHED, STAGED, Snapshot, list_snapshots
from userrep.tables import Tables
from userrep.utc import utc_now

OK, WARN, FAIL = "ok", "warn", "fail"
_NEIGHBOURS_AMONG = 2_000  # users, on the driver
_MOMENTS = "num_rows BIGINT, norms DOUBLE, sums ARRAY<DOUBLE>, products BINARY"


@dataclass(frozen=True)
class Drift:
    """What was measured of a snapshot against the one ``before``. ``parts``: by metric, of dimensions or inputs."""

    snapshot: Snapshot
    before: Snapshot
    metrics: dict[str, float]
    parts: dict[str, dict[str, float]]
    outcomes: dict[str, str]

    def said(self, outcome: str) -> list[str]:
        """Say which metrics have an outcome, and how far they went."""
        names = [name for name, of in self.outcomes.items() if of == outcome]
        return [f"{name} {self.metrics[name]:.3f}" + self._worst(name) for name in names]

    def _worst(self, metric: str) -> str:
        parts = self.parts.get(metric)
        return f" ({max(parts, key=lambda part: parts[part])})" if parts else ""


def measure_drift(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> Drift | None:
    """Compare a snapshot, staged or published, with the published one of the date before it; None if there is none.

    What is found goes to ``snapshot_drift``, in the place of an earlier measurement of the same snapshot. Cost: a read
    of ``drift.sample_users`` vectors of both snapshots and one shuffle of their ids, and of the inputs of all users of
    both dates, of which those of the sample pass through encoder and decoder. Driver memory: D x D numbers a task, and
    2,000 users.
    """
    earlier = [s for s in list_snapshots(tables, space.space_id) if s.as_of < snapshot.as_of]
    if not earlier:
        return None
    before = earlier[-1]
    users = max(snapshot.num_users, before.num_users, 1)
    sample = _Sample(tables, int(np.ceil(NUM_BUCKETS * min(1, config.drift.sample_users / users))))
    metrics, parts = sample.compared(snapshot, before)
    changed, of_inputs = sample.inputs_compared(config, space, snapshot, before)
    parts |= of_inputs
    metrics |= changed | {"rows_change": abs(snapshot.num_users / max(1, before.num_users) - 1)}
    drift = Drift(snapshot, before, metrics, parts, _judged(config, metrics))
    _record(tables, drift)
    return drift


def newest_measurable(tables: Tables, space: Space, as_of: date) -> Snapshot:
    """Return the newest revision of a date that is staged or published. Raises UsageError if there is none."""
    found = [s for s in list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED)) if s.as_of == as_of]
    if not found:
        raise UsageError(
            f"space {space.space_id} has no snapshot of {as_of}: `userrep run embed_users --as-of {as_of}` makes it."
        )
    return found[-1]


@dataclass(frozen=True)
class _Sample:
    """The users in buckets below ``limit``."""

    tables: Tables
    limit: int

    def compared(self, now: Snapshot, before: Snapshot) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Compare the vectors of two snapshots."""
        a, b = self._vectors(now), self._vectors(before)
        then_a, then_b = _Moments.of(a), _Moments.of(b)
        for of, snapshot in ((then_a, now), (then_b, before)):
            if not of.num_rows:
                raise UsageError(
                    f"drift: no user of {snapshot.snapshot_id} is in the sample; set drift.sample_users higher."
                )
        dims = [f"dimension {k}" for k in range(len(then_a.mean_D))]
        deviation_D = np.sqrt(np.maximum(then_b.variance_D, 1e-12))
        shift_D = np.abs(then_a.mean_D - then_b.mean_D) / deviation_D
        change_D = np.abs(np.log(np.maximum(then_a.variance_D, 1e-12) / np.maximum(then_b.variance_D, 1e-12)))
        metrics = {
            **_turnover(a, b),
            "norm_change": abs(then_a.mean_norm / max(then_b.mean_norm, 1e-12) - 1),
            "mean_shift": float(shift_D.max()),
            "variance_change": float(change_D.max()),
            "rank_loss": max(0.0, 1 - then_a.effective_rank / then_b.effective_rank),
            "neighbours_lost": 1 - _overlap(a, b),
        }
        parts = {
            "mean_shift": dict(zip(dims, shift_D.tolist(), strict=True)),
            "variance_change": dict(zip(dims, change_D.tolist(), strict=True)),
        }
        return metrics, parts

    def inputs_compared(
        self, config: Config, space: Space, now: Snapshot, before: Snapshot
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Compare the single numbers and flags among the inputs, and how well the space gives inputs back.

        Nothing where the features of a date are not there, or the space has those of another configuration.
        """
        built, spec = feature_sets(self.tables, space.lineage_id), FeatureSpec.of(config)
        if space.lineage_id != lineage_of(config) or not {now.as_of, before.as_of} <= set(built):
            return {}, {}
        a, b = (
            stored_features(self.tables, config, space.lineage_id, [as_of]).where(user_bucket() < self.limit)
            for as_of in (now.as_of, before.as_of)
        )
        idle = F.avg((F.col(f"num_events_{spec.longest}d") == 0).cast("double"))
        shares = [rows.agg(idle).first()[0] or 0.0 for rows in (a, b)]  # type: ignore[index]
        names = [*spec.scalars, *(f"has_{block.column}" for block in spec.pooled)]
        numbers = [F.col(name).cast("double") for name in names]
        found = stability(a.select(*numbers), b.select(*numbers))
        model = {"folder": artifact_folder(config, space.space_id), "content_hash": space.content_hash}
        error, error_before = (reconstruction_errors(rows, **model) for rows in (a, b))
        metrics = {
            "no_event_change": abs(shares[0] - shares[1]),
            "psi": max(found.values()),
            "error_growth": max(0.0, _growth(sum(error.values()), sum(error_before.values()))),
        }
        growth = {name: _growth(error[name], error_before[name]) for name in error}
        return metrics, {"psi": found, "error_growth": growth}

    def _vectors(self, snapshot: Snapshot) -> DataFrame:
        rows = self.tables.read(USER_EMBEDDINGS).where(snapshot.where).where(F.col("user_bucket") < self.limit)
        return rows.select("user_bucket", "user_id", "embedding")


@dataclass(frozen=True)
class _Moments:
    """Count, mean length, mean and covariance of vectors."""

    num_rows: int
    mean_norm: float
    mean_D: NDArray[np.float64]
    covariance_DD: NDArray[np.float64]

    @classmethod
    def of(cls, rows: DataFrame) -> "_Moments":
        def sums(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                vectors = batch.column("embedding")
                if len(vectors):
                    z_ND = stacked(vectors, len(vectors[0])).astype(np.float64)
                    yield pa.RecordBatch.from_pydict(
                        {
                            "num_rows": [len(z_ND)],
                            "norms": [float(np.linalg.norm(z_ND, axis=1).sum())],
                            "sums": [z_ND.sum(axis=0)],
                            "products": [(z_ND.T @ z_ND).tobytes()],
                        }
                    )

        found = rows.select("embedding").mapInArrow(sums, _MOMENTS).collect()
        num = sum(row.num_rows for row in found)
        if not num:
            return cls(0, 0.0, np.zeros(0), np.zeros((0, 0)))
        mean_D = np.sum([row.sums for row in found], axis=0) / num
        products_DD = sum(np.frombuffer(row.products).reshape(len(mean_D), -1) for row in found)
        return cls(num, sum(row.norms for row in found) / num, mean_D, products_DD / num - np.outer(mean_D, mean_D))

    @property
    def variance_D(self) -> NDArray[np.float64]:
        return np.diag(self.covariance_DD)

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the shares that the principal components have of the variance."""
        shares = np.maximum(np.linalg.eigvalsh(self.covariance_DD), 0)
        shares = shares[shares > 0] / max(shares.sum(), 1e-300)
        return float(np.exp(-(shares * np.log(shares)).sum()))


def _turnover(now: DataFrame, before: DataFrame) -> dict[str, float]:
    """Count who has come and who has gone, as shares of those who were there before."""
    a, b = (rows.select("user_id", F.lit(1).alias(name)) for rows, name in ((now, "now"), (before, "before")))
    both = a.join(b, on="user_id", how="full_outer")
    found = both.agg(
        F.count_if(F.col("before").isNull()).alias("new"), F.count_if(F.col("now").isNull()).alias("vanished"),
        F.count("before").alias("before"),
    ).first()  # fmt: skip
    assert found is not None
    return {f"{name}_share": found[name] / max(1, found.before) for name in ("new", "vanished")}


def _overlap(now: DataFrame, before: DataFrame) -> float:
    """Compare the ten nearest neighbours of users who are in both, among the same users."""
    pairs = now.join(before.select("user_id", F.col("embedding").alias("before")), on="user_id", how="inner")
    few = pairs.orderBy("user_bucket", "user_id").limit(_NEIGHBOURS_AMONG).select("embedding", "before").toArrow()
    if few.num_rows < 2:
        return 1.0
    width = len(few.column("embedding")[0])
    a_ND, b_ND = (stacked(few.column(name).combine_chunks(), width) for name in ("embedding", "before"))
    return shared_neighbours(a_ND, b_ND)


def _growth(now: float, before: float) -> float:
    return now / max(before, 1e-12) - 1


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

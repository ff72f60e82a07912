"""Drift finds what was done to vectors and inputs, and nothing where nothing was done."""

import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, publish, snapshot
from tests.unit.inference.test_model import features, saved
from userrep.config import Config
from userrep.monitoring.drift import FAIL, OK, WARN, MeasuredDrift, measure_drift
from userrep.monitoring.input_drift import Ranges, compare_inputs, reconstruction_errors
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import STAGED, newest_snapshot
from userrep.store.open import open_tables
from userrep.store.schemas import SNAPSHOT_DRIFT
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
NUM, DIM = 400, 6
Z = np.random.default_rng(3).normal(size=(NUM, DIM)) * [3, 2, 1, 1, 1, 1]
USERS = [f"u{k}" for k in range(NUM)]
SPACE = "s001-a"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(spark: SparkSession, config: Config) -> Tables:
    tables = open_tables(config, spark)
    add_spaces(tables, SPACE)
    return tables


def drift_of(tables: Tables, config: Config, now: np.ndarray, users: list[str] = USERS) -> MeasuredDrift:
    """Publish Z and then other vectors; measure."""
    for day, names, vectors in ((D1, USERS, Z), (D2, users, now)):
        rows = {name: vector.tolist() for name, vector in zip(names, vectors.astype(np.float32), strict=True)}
        of = snapshot(day, state=STAGED if day == D2 else "published")
        publish(tables, {replace(of, num_users=len(rows)): rows})
    space = find_space(tables, SPACE)
    found = measure_drift(tables, config, space, newest_snapshot(tables, SPACE, D2, states=(STAGED,)))
    assert found is not None
    return found


def test_nothing_moves_where_nothing_was_changed(tables: Tables, config: Config) -> None:
    found = drift_of(tables, config, Z)
    assert set(found.metrics) == {
        "rows_change", "new_share", "vanished_share", "norm_change", "mean_shift", "variance_change", "rank_loss",
        "neighbours_lost",
    }  # fmt: skip  # no features here: nothing of inputs
    assert all(abs(value) < 1e-9 for value in found.metrics.values())
    assert set(found.outcomes.values()) == {OK}
    assert found.describe(WARN) == []


def test_each_metric_equals_that_of_numpy(tables: Tables, config: Config) -> None:
    now = Z.copy().astype(np.float32)
    now[:, 3] += 1.5
    now[:, 1] *= 3
    found = drift_of(tables, config, np.vstack([now[40:], now[:8]]), [*USERS[40:], *(f"new{k}" for k in range(8))])
    then, z = Z.astype(np.float32).astype(np.float64), np.vstack([now[40:], now[:8]]).astype(np.float64)
    metrics = found.metrics
    assert metrics["rows_change"] == pytest.approx(32 / 400)
    assert (metrics["new_share"], metrics["vanished_share"]) == (8 / 400, 40 / 400)
    shift = np.abs(z.mean(axis=0) - then.mean(axis=0)) / then.std(axis=0)
    assert metrics["mean_shift"] == pytest.approx(shift.max())
    assert found.parts["mean_shift"]["dimension 3"] == pytest.approx(shift[3])
    change = np.abs(np.log(z.var(axis=0) / then.var(axis=0)))
    assert metrics["variance_change"] == pytest.approx(change[1])
    norms = [np.linalg.norm(of, axis=1).mean() for of in (z, then)]
    assert metrics["norm_change"] == pytest.approx(norms[0] / norms[1] - 1)
    ranks = []
    for of in (z, then):
        share = np.linalg.eigvalsh(np.corrcoef(of.T))
        share = share / share.sum()
        ranks.append(np.exp(-(share * np.log(share)).sum()))
    assert metrics["rank_loss"] == pytest.approx(max(0, 1 - ranks[0] / ranks[1]))
    assert 0.1 < metrics["neighbours_lost"] < 1
    assert any(said.startswith("mean_shift 1.") and said.endswith("(dimension 3)") for said in found.describe(WARN))
    kept = {row.metric: (row.value, row.outcome) for row in tables.ledger(SNAPSHOT_DRIFT) if not row.part}
    assert kept == {name: (value, found.outcomes[name]) for name, value in metrics.items()}


def test_limits_fail_or_are_silent_as_they_are_set(tables: Tables, config: Config, tmp_path: Path) -> None:
    strict = config_of(tmp_path, drift={"fail": {"vanished_share": 0.05}, "warn": {"rows_change": None}})
    assert strict.drift.warn.psi == config.drift.warn.psi
    found = drift_of(tables, strict, Z[200:], USERS[200:])
    assert found.outcomes["vanished_share"] == FAIL
    assert found.outcomes["rows_change"] == OK
    assert found.describe(FAIL) == ["vanished_share 0.500"]


def test_a_sample_is_of_the_same_users_at_both_dates(tables: Tables, config: Config, tmp_path: Path) -> None:
    few = config_of(tmp_path, drift={"sample_users": 100})
    now = Z.copy()
    now[:, 0] += 1
    found = drift_of(tables, few, now)
    assert (found.metrics["new_share"], found.metrics["vanished_share"]) == (0, 0)
    assert found.metrics["mean_shift"] == pytest.approx(1 / 3, abs=0.1)


def test_the_stability_of_columns_is_that_of_their_histograms(spark: SparkSession) -> None:
    def indices(now: DataFrame, before: DataFrame) -> dict[str, float]:
        ranges = Ranges.of(before, before.columns)
        a, b = (ranges.counts(rows.toArrow().combine_chunks().to_batches()[0]) for rows in (now, before))
        return ranges.indices(a, b)

    random = np.random.default_rng(5)
    before = random.normal(size=2000)
    now = np.where(random.random(2000) < 0.3, np.nan, before + 0.5)
    rows = [
        spark.createDataFrame(
            [(float(x) if x == x else None, 1.0, float(k % 20 > 0) * is_there) for k, x in enumerate(of)],
            "x DOUBLE, y DOUBLE, has DOUBLE",
        )
        for of, is_there in ((now, 0.0), (before, 1.0))
    ]
    found = indices(*rows)
    deciles = np.sort(before)[[k * 200 - 1 for k in range(1, 10)]]
    ends = np.sort(np.concatenate([deciles, np.nextafter(deciles, -np.inf)]))
    shares = [
        np.append(np.bincount(np.searchsorted(ends, of[~np.isnan(of)]), minlength=19), np.isnan(of).sum()) / 2000
        for of in (now, before)
    ]
    p, q = (np.maximum(share, 1e-4) for share in shares)
    assert found["x"] == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=0.02)
    assert found["y"] == 0
    assert found["has"] > 5  # a flag that falls from 95 % of users to none
    assert indices(rows[1], rows[1])["x"] == 0


def test_inputs_that_moved_are_found_and_reconstructed_worse(spark: SparkSession, tmp_path: Path) -> None:
    manifest = saved(tmp_path / "s1")
    before = pa.Table.from_batches([features(40)])  # of 0 to 39 events
    events = pa.array([0 if k < 10 else k for k in range(40)])
    now = before.set_column(before.schema.get_field_index("num_events_7d"), "num_events_7d", events)
    dated = [rows.append_column("as_of", pa.array([day] * 40, pa.date32())) for rows, day in ((before, D1), (now, D2))]
    metrics, parts = compare_inputs(
        spark.createDataFrame(pa.concat_tables(dated)).repartition(3), now=D2, before=D1, spec=manifest.layout.spec,
        folder=str(tmp_path / "s1"), content_hash=manifest.content_hash,
    )  # fmt: skip
    assert metrics["no_event_change"] == pytest.approx(10 / 40 - 1 / 40)
    # Below the first decile 3 users of 40 became 10; at it, and at the next, 1 became none; between, 3 did, and 3 1.
    pairs = [(10 / 40, 3 / 40), (1e-4, 1 / 40), (1e-4, 3 / 40), (1e-4, 1 / 40), (1 / 40, 3 / 40)]
    psi = sum((p - q) * math.log(p / q) for p, q in pairs)
    assert parts["psi"]["num_events_7d"] == metrics["psi"] == pytest.approx(psi)
    assert parts["psi"]["weight_7d"] == parts["psi"]["has_behaviour_7d"] == 0
    space = (str(tmp_path / "s1"), manifest.content_hash)
    errors = [reconstruction_errors(rows.to_batches()[0], *space) for rows in (now, before)]
    growth = dict(zip((block.name for block in manifest.layout.blocks), errors[0] / errors[1] - 1, strict=True))
    assert parts["error_growth"] == pytest.approx(growth, abs=1e-5)
    assert metrics["error_growth"] == pytest.approx(max(0, errors[0].sum() / errors[1].sum() - 1), abs=1e-5)


def test_inputs_of_a_date_without_users_are_far_from_all_others(spark: SparkSession, tmp_path: Path) -> None:
    manifest = saved(tmp_path / "s1")
    dated = pa.Table.from_batches([features(40)]).append_column("as_of", pa.array([D1] * 40, pa.date32()))
    metrics, _ = compare_inputs(
        spark.createDataFrame(dated), now=D2, before=D1, spec=manifest.layout.spec, folder=str(tmp_path / "s1"),
        content_hash=manifest.content_hash,
    )  # fmt: skip
    assert metrics["no_event_change"] == 1 / 40
    assert metrics["psi"] > 5
    assert metrics["error_growth"] == 0

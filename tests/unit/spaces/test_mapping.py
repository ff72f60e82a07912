"""Maps between spaces: the fit of a planted map, and the measure of agreement."""

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from userrep.errors import UsageError
from userrep.spaces.agreement import agreement
from userrep.spaces.mapping import LinearMap, fit_map

pytestmark = pytest.mark.default

WIDTHS = (5, 4)  # of the space that is mapped, of the one whose coordinates come out


def planted(num_rows: int = 600, *, noise: float = 0.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    z_new = random.normal(size=(num_rows, WIDTHS[0])) + 2
    weight, bias = random.normal(size=WIDTHS), random.normal(size=WIDTHS[1])
    return z_new, z_new @ weight + bias + noise * random.normal(size=(num_rows, WIDTHS[1]))


def pairs(spark: SparkSession, z_new: np.ndarray, z_old: np.ndarray, *, every: int = 10) -> DataFrame:
    """Pair vectors of one date; each ``every``-th row is held out."""
    rows = [
        ("2024-05-01", f"u{k}", *map(np.ndarray.tolist, both), k % every == 0)
        for k, both in enumerate(zip(z_new, z_old, strict=True))
    ]
    schema = "as_of STRING, user_id STRING, z_new ARRAY<FLOAT>, z_old ARRAY<FLOAT>, is_held_out BOOLEAN"
    return spark.createDataFrame(rows, schema)


def test_a_planted_map_is_found_and_is_that_of_numpy_at_any_number_of_partitions(spark: SparkSession) -> None:
    z_new, z_old = planted(noise=0.1)
    found = pairs(spark, z_new, z_old)
    fitted_on = np.arange(len(z_new)) % 10 != 0
    with_constant = np.hstack([z_new, np.ones((len(z_new), 1))]).astype(np.float32).astype(np.float64)
    expected, *_ = np.linalg.lstsq(with_constant[fitted_on], z_old[fitted_on], rcond=None)
    for num_partitions in (1, 7):
        fitted = fit_map(found.repartition(num_partitions))
        np.testing.assert_allclose(fitted.weight_ED, expected[:-1], atol=2e-3)
        np.testing.assert_allclose(fitted.bias_D, expected[-1], atol=5e-3)


def test_agreement_is_that_of_the_held_out_rows_by_hand(spark: SparkSession) -> None:
    z_new, z_old = (z.astype(np.float32) for z in planted(noise=0.8))
    found = pairs(spark, z_new, z_old)
    fitted = fit_map(found)
    told = agreement(found.repartition(3), fitted)
    new, old = z_new[::10], z_old[::10].astype(np.float64)
    mapped = fitted(new).astype(np.float64)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(mapped, old, strict=True)]
    assert told.num_rows == told.num_neighbours == len(old) == 60
    assert told.mean_cosine == pytest.approx(np.mean(cosines), rel=1e-6)
    residual_D = np.square(mapped - old).sum(axis=0) / np.square(old - old.mean(axis=0)).sum(axis=0)
    assert told.residual == pytest.approx(residual_D.mean(), rel=1e-6)
    assert 0.3 < told.overlap_at_10 < 1
    assert told.overlap_at_10 == pytest.approx(overlap(mapped, old))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Count common neighbours one user at a time."""

    def nearest(z: np.ndarray, k: int) -> set[int]:
        near = [z[k] @ z[j] / np.linalg.norm(z[k]) / np.linalg.norm(z[j]) for j in range(len(z))]
        return set(sorted((j for j in range(len(z)) if j != k), key=lambda j: -near[j])[:10])

    return float(np.mean([len(nearest(a, k) & nearest(b, k)) / 10 for k in range(len(a))]))


def test_a_perfect_map_agrees_in_all(spark: SparkSession) -> None:
    z_new, z_old = planted()
    found = pairs(spark, z_new, z_old)
    told = agreement(found, fit_map(found))
    assert told.mean_cosine == pytest.approx(1, abs=1e-4)
    assert told.residual == pytest.approx(0, abs=1e-5)
    assert told.overlap_at_10 > 0.98


def test_a_dead_dimension_breaks_no_map(spark: SparkSession) -> None:
    z_new, z_old = planted()
    z_new[:, 2] = 0.5
    fitted = fit_map(pairs(spark, z_new, z_old))
    assert np.isfinite(fitted.weight_ED).all()
    assert np.isfinite(fitted.bias_D).all()


def test_spaces_without_a_user_in_common_are_refused(spark: SparkSession) -> None:
    nobody = pairs(spark, *planted(20)).where("false")
    with pytest.raises(UsageError, match="no user has a vector in both spaces"):
        fit_map(nobody)
    identity = LinearMap(np.eye(*WIDTHS, dtype=np.float32), np.zeros(WIDTHS[1], np.float32))
    with pytest.raises(UsageError, match="fewer than two held-out users have a vector in both spaces"):
        agreement(nobody, identity)

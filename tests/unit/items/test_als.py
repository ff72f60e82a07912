"""Interactions that a version of the behavior vectors is fitted on, and its fit in a task or by Spark."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from userrep.config import AlsVectors
from userrep.items import als
from userrep.items.als import PlannedFit, behaviour_vectors, fit_versions, interactions
from userrep.items.als_on_spark import fit_als

pytestmark = pytest.mark.default

V0, V1, V2 = date(2024, 5, 1), date(2024, 5, 8), date(2024, 5, 15)
DAY = timedelta(days=1)
ALL = 100  # above all buckets here


def test_a_version_counts_events_before_its_date_and_those_on_it_go_to_the_next(spark: SparkSession) -> None:
    tiles = spark.createDataFrame(
        [
            ("a", 1, "x", V1 - 30 * DAY, 2), ("a", 1, "x", V1 - DAY, 3), ("a", 1, "x", V1, 10),
            ("a", 1, "x", V2 - DAY, 20), ("b", 2, "x", V2 - DAY, 5), ("b", 2, "y", V1 - DAY, 7),
            ("b", 2, "not in the index", V1 - DAY, 100), ("b", 2, "x", V2, 1000),
        ],
        "user_id STRING, user_bucket INT, item_id STRING, event_date DATE, num_events INT",
    )  # fmt: skip
    index = spark.createDataFrame([("x", 0), ("y", 1), ("z", 2)], "item_id STRING, item_index INT")

    def found(**limits: int) -> list[tuple[Any, ...]]:
        versions = {"v1": V1, "v2": V2}
        rows = interactions(tiles, index, {versions[name]: limit for name, limit in limits.items()}).collect()
        hashes = {row.user_bucket: row.user_hash for row in rows}
        assert len(set(hashes.values())) == len({row.user_hash for row in rows}) == len(hashes)
        return sorted((row.user_bucket, row.item_index, row.valid_from, row.num_events) for row in rows)

    assert found(v1=ALL, v2=ALL) == [(1, 0, V1, 5), (1, 0, V2, 30), (2, 0, V2, 5), (2, 1, V1, 7)]
    assert found(v1=ALL, v2=2) == [(1, 0, V1, 5), (1, 0, V2, 30), (2, 1, V1, 7)]
    assert found(v2=2) == [(1, 0, V2, 35)]
    assert found() == []


def random_pairs(seed: int) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    return [(user, item, int(rng.integers(1, 9))) for user in range(40) for item in range(9) if (user + item) % 3]


def frame_of(spark: SparkSession, pairs: list[tuple[int, int, int]], valid_from: date = V1) -> DataFrame:
    rows = [(user, 1, item, valid_from, num) for user, item, num in pairs]
    return spark.createDataFrame(
        rows, "user_hash LONG, user_bucket INT, item_index INT, valid_from DATE, num_events LONG"
    )


def planned(*, before: date | None = V0, version: date = V1) -> PlannedFit:
    return PlannedFit(version, ALL, before)


def vectors_of(frame: DataFrame) -> dict[int, NDArray[np.float64]]:
    return {row.item_index: np.array(row.vector) for row in frame.collect()}


@pytest.mark.parametrize("solver", ["implicit", pytest.param("spark", marks=pytest.mark.full)])
def test_a_fit_depends_on_no_order_and_lies_on_the_axes_of_another_version(spark: SparkSession, solver: Any) -> None:
    settings = AlsVectors(kind="als", dim=3, iterations=3, solver=solver)
    pairs = random_pairs(0)

    def fitted(pairs: list[tuple[int, int, int]], before: DataFrame | None = None) -> dict[int, NDArray[np.float64]]:
        frame = frame_of(spark, pairs)
        return vectors_of(behaviour_vectors(frame, [planned(before=V2)], before, settings=settings))

    first = fitted(pairs)
    assert first.keys() == set(range(9))
    assert [np.linalg.norm(vector) for vector in first.values()] == pytest.approx([1] * 9, abs=1e-5)
    in_two_parts = [(user, item, part) for user, item, num in pairs[::-1] for part in (1, num - 1) if part]
    second = fitted(in_two_parts)
    assert all((second[item] == first[item]).all() for item in first)

    turned = {item: vector[[2, 0, 1]] * [1, -1, 1] for item, vector in first.items()}
    rows = [(V2, item, vector.tolist()) for item, vector in turned.items()]
    stored = "valid_from DATE, item_index INT, vector ARRAY<FLOAT>"
    before = spark.createDataFrame([*rows, (V2, 30, [1.0, 0.0, 0.0])], stored)
    again = fitted(pairs, before)
    assert again.keys() == first.keys()
    for item, vector in turned.items():
        np.testing.assert_allclose(again[item], vector, atol=1e-4)


def test_a_fit_that_starts_from_the_version_before_stays_closer_to_it() -> None:
    random = np.random.default_rng(7)
    chance = 1 / (1 + np.exp(2 - random.normal(size=(80, 6)) @ random.normal(size=(6, 40))))
    before, news = (np.argwhere(random.random((80, 40)) < share * chance) for share in (1, 0.2))
    settings = AlsVectors(kind="als", dim=6)

    def fitted(cells: NDArray[Any], vectors: dict[int, Any], *, axes_from: date) -> dict[int, Any]:
        batches = batches_of([], vectors, valid_from=axes_from)
        batches += batches_of([(int(user), int(item), 1) for user, item in cells], {})
        fit = fit_versions(iter(batches), settings, (planned(before=axes_from),))
        return {row["item_index"]: np.array(row["vector"]) for batch in fit for row in batch.to_pylist()}

    first = fitted(before, {}, axes_from=V2)
    now = {day: fitted(np.vstack([before, news]), first, axes_from=day) for day in (V0, V2)}
    cosine = {day: np.mean([now[day][item] @ first[item] for item in first]) for day in now}
    assert cosine[V0] > cosine[V2] + 0.02, cosine  # a later version only provides its axes


def test_a_fit_that_starts_from_an_earlier_version_takes_a_third_of_the_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, fit = [], als.fit_item_factors

    def counted(*given: Any, iterations: int, **how: Any) -> NDArray[np.float32]:
        taken.append(iterations)
        return fit(*given, iterations=iterations, **how)

    monkeypatch.setattr(als, "fit_item_factors", counted)
    stored = {item: np.eye(3)[item % 3] for item in range(9)}
    for iterations in (6, 2):
        settings = AlsVectors(kind="als", dim=3, iterations=iterations)
        for before, vectors in ((None, {}), (V2, stored), (V0, {}), (V0, stored)):
            batches = batches_of([], vectors, valid_from=before or V0) + batches_of(random_pairs(0), {})
            assert len(list(fit_versions(iter(batches), settings, [planned(before=before)]))) == 1
    assert taken == [6, 6, 6, 2, 2, 2, 2, 1]


def test_a_version_without_interactions_has_no_vectors() -> None:
    settings, plan = AlsVectors(kind="als", dim=3), (planned(),)
    assert list(fit_versions(iter(batches_of([], {4: np.ones(3)})), settings, plan)) == []
    assert list(fit_versions(iter([]), settings, plan)) == []


def test_versions_that_are_fitted_together_are_those_that_are_fitted_one_after_the_other() -> None:
    settings = AlsVectors(kind="als", dim=3)
    old, new = random_pairs(0)[::2], random_pairs(1)
    plan = (planned(), PlannedFit(V2, 2, V1))
    stored = {item: np.eye(3)[item % 3] for item in range(5)}
    rows = batches_of(old, stored) + batches_of(new, {}, valid_from=V2) + batches_of(new, {}, valid_from=V2, bucket=2)

    def fitted(batches: list[pa.RecordBatch], *fits: PlannedFit) -> dict[tuple[date, int], list[float]]:
        found = [row for batch in fit_versions(iter(batches), settings, fits) for row in batch.to_pylist()]
        return {(row["valid_from"], row["item_index"]): row["vector"] for row in found}

    together = fitted(rows, *plan)
    first = fitted(rows, plan[0])
    vectors = {item: np.array(vector) for (_, item), vector in first.items()}
    second = fitted(batches_of([], vectors, valid_from=V1) + rows[1:] + batches_of(old, {}), plan[1])
    assert {version for version, _ in together} == {V1, V2}
    assert together == first | second
    assert together != first | fitted(batches_of(old, {}) + rows[1:], PlannedFit(V2, 2, None))


def test_a_task_that_cannot_hold_the_interactions_stops_before_it_has_received_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received = []

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in batches_of(random_pairs(0), {}) * 9:
            received.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(als, "free_bytes", lambda: 96 * 400)
    with pytest.raises(
        MemoryError,
        match=r"^not enough memory for ALS: at least [\d,]+ user-item pairs .* got 0\.0 GB of free memory\.$",
    ):
        list(fit_versions(batches(), AlsVectors(kind="als", dim=3), (planned(),)))
    assert len(received) == 2


def test_factors_of_spark_are_rotated_whatever_a_fit_in_one_task_would_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "free_bytes", lambda: 1)
    rows = {"user_hash": 0, "user_bucket": 0, "valid_from": V1, "num_events": 0}
    factors = [rows | {"item_index": item, "vector": np.eye(3)[item].tolist()} for item in range(3)]
    batches = pa.Table.from_pylist(factors, als._INPUT).to_batches()
    (found,) = fit_versions(iter(batches), AlsVectors(kind="als", dim=3, solver="spark"), (planned(),))
    assert found.column("item_index").to_pylist() == [0, 1, 2]


def batches_of(
    pairs: list[tuple[int, int, int]], vectors: dict[int, Any], *, valid_from: date | None = None, bucket: int = 1
) -> list[pa.RecordBatch]:
    """Return rows as a task receives them: vectors of another version first."""
    rows: list[dict[str, Any]] = [
        {"item_index": item, "valid_from": valid_from or V0, "vector": vector.tolist()}
        for item, vector in vectors.items()
    ]
    names = ("user_hash", "item_index", "num_events")
    shared = {"user_bucket": bucket, "valid_from": valid_from or V1, "vector": []}
    rows += [dict(zip(names, pair, strict=True)) | shared for pair in pairs]
    return pa.Table.from_pylist(rows, als._INPUT).to_batches()


@pytest.mark.full
def test_events_of_a_pair_are_added_up_before_their_logarithm_is_taken_by_spark(spark: SparkSession) -> None:
    pairs = [(user, item, num + 1) for user, item, num in random_pairs(0)]
    settings = AlsVectors(kind="als", dim=2, iterations=1)

    def factors(rows: list[tuple[int, int, int]]) -> dict[int, list[float]]:
        frame: DataFrame = spark.createDataFrame(rows, "user_number INT, item_index INT, num_events LONG")
        model = fit_als(frame, settings=settings)
        return {row.id: list(row.features) for row in model.itemFactors.collect()}

    in_two = [(user, item, part) for user, item, num in pairs for part in (1, num - 1)]
    assert factors(in_two) == factors(pairs)
    assert factors([(user, item, 1) for user, item, _ in pairs]) != factors(pairs)

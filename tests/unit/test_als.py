"""Interactions that a version of the behavior vectors is fitted on, and the factors that they give."""

from datetime import date, timedelta

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from userrep.config import AlsVectors
from userrep.items.als import fit_als, interactions

pytestmark = pytest.mark.default

V1, V2 = date(2024, 5, 8), date(2024, 5, 15)
DAY = timedelta(days=1)


def test_a_version_counts_events_before_its_date_and_those_on_it_go_to_the_next(spark: SparkSession) -> None:
    tiles = spark.createDataFrame(
        [
            ("a", 1, "x", V1 - 30 * DAY, 2), ("a", 1, "x", V1 - DAY, 3), ("a", 1, "x", V1, 10),
            ("a", 1, "x", V2 - DAY, 20), ("b", 2, "x", V2 - DAY, 5), ("b", 2, "y", V1 - DAY, 7),
            ("b", 2, "not in the index", V1 - DAY, 100),
        ],
        "user_id STRING, user_bucket INT, item_id STRING, event_date DATE, num_events INT",
    )  # fmt: skip
    index = spark.createDataFrame([("x", 0), ("y", 1), ("z", 2)], "item_id STRING, item_index INT")
    rows = interactions(tiles, index, [V1, V2]).collect()
    assert {row.user_bucket: row.user_number for row in rows}.keys() == {1, 2}
    assert sorted({row.user_number for row in rows}) == [0, 1]
    assert sorted((row.user_bucket, row.item_index, row.valid_from, row.num_events) for row in rows) == [
        (1, 0, V1, 5), (1, 0, V2, 30), (2, 0, V2, 5), (2, 1, V1, 7),
    ]  # fmt: skip


@pytest.mark.full
def test_events_of_a_pair_are_added_up_before_their_logarithm_is_taken(spark: SparkSession) -> None:
    random = np.random.default_rng(0)
    pairs = [(user, item, int(random.integers(2, 9))) for user in range(6) for item in range(4) if (user + item) % 3]
    settings = AlsVectors(kind="als", dim=2, iterations=1)

    def factors(rows: list[tuple[int, int, int]]) -> dict[int, list[float]]:
        frame: DataFrame = spark.createDataFrame(rows, "user_number INT, item_index INT, num_events LONG")
        model = fit_als(frame, settings=settings, num_blocks=1)
        return {row.id: list(row.features) for row in model.itemFactors.collect()}

    in_two = [(user, item, part) for user, item, num in pairs for part in (1, num - 1)]
    assert factors(in_two) == factors(pairs)
    assert factors([(user, item, 1) for user, item, _ in pairs]) != factors(pairs)

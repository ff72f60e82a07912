"""When a user counts as heavy: at least 1 % of all events, and at least 20 times the mean."""

import pytest
from pyspark.sql import SparkSession

from userrep.workflows.data_stages import HeavyUsers, heavy_users

pytestmark = pytest.mark.default


@pytest.mark.parametrize(
    ("num_others", "others", "most", "expected"),
    [
        (39, 1, [39], HeavyUsers(1, 39 / 78, 7)),  # exactly 20 times the mean
        (39, 1, [38], None),
        (4950, 1, [50], HeavyUsers(1, 0.01, 7)),  # exactly 1 % of all
        (4951, 1, [49], None),  # 48 times the mean, but less than 1 %
        (100, 10, [3000, 2000], HeavyUsers(2, 0.5, 7)),
        (39, 0, [], None),  # users without an event
        (0, 0, [], None),
    ],
)
def test_a_heavy_user_has_one_percent_of_all_events_and_twenty_times_the_mean(
    spark: SparkSession, num_others: int, others: int, most: list[int], expected: HeavyUsers | None
) -> None:
    rows = spark.range(num_others).selectExpr(f"{others}L AS num_events_7d")
    if most:
        rows = rows.union(spark.createDataFrame([(n,) for n in most], "num_events_7d LONG"))
    assert heavy_users(rows, 7) == expected

"""The status of a label: how it came by its vector, or why it has none; age limits to the microsecond."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from userrep.joins.options import JoinOptions
from userrep.joins.outputs import with_outputs

pytestmark = pytest.mark.default

D = date(2024, 5, 10)
NOON = datetime(2024, 5, 10, 12)
MICROSECOND = timedelta(microseconds=1)
COLUMNS = """n INT, user_id STRING, label_at TIMESTAMP, __snapshot_id STRING, __as_of DATE, __state STRING,
    __in_sample BOOLEAN, __embedding ARRAY<FLOAT>, __update STRUCT<as_of: DATE, embedding: ARRAY<FLOAT>>"""
FOUND: dict[str, Any] = {
    "user_id": "u", "label_at": NOON, "__snapshot_id": "x", "__as_of": D, "__state": "published",
    "__in_sample": False, "__embedding": [1.0], "__update": None,
}  # fmt: skip
NO_SNAPSHOT: dict[str, Any] = dict.fromkeys(("__snapshot_id", "__as_of", "__state", "__embedding"))


def outputs(spark: SparkSession, labels: list[dict[str, Any]], **options: Any) -> list[Row]:
    """Return what the join adds to labels, each FOUND but for what it names."""
    rows = [tuple((FOUND | {"n": n} | of)[name] for name in ("n", *FOUND)) for n, of in enumerate(labels)]
    frame = with_outputs(
        spark.createDataFrame(rows, COLUMNS),
        JoinOptions(**options),
        kept=["n", "user_id", "label_at"],
        space_id="s001-a",
        dim=1,
        new_user=None,
        into=None,
    )
    return sorted(frame.collect(), key=lambda row: row.n)


def test_a_vector_of_exactly_the_age_limit_is_not_too_old(spark: SparkSession) -> None:
    limit = datetime(2024, 5, 12)  # two days after the as-of date
    update, late = {"__update": (D, [2.0])}, {"__as_of": D - timedelta(days=1)}
    labels: list[dict[str, Any]] = [
        {"label_at": limit},
        {"label_at": limit + MICROSECOND},
        late | update | {"label_at": limit},
        late | update | {"label_at": limit + MICROSECOND},
        NO_SNAPSHOT | update | {"label_at": limit + MICROSECOND},
    ]
    found = outputs(spark, labels, max_age_days=2, updates=True)
    assert [(row.embedding_status, row.embedding) for row in found] == [
        ("found", [1.0]), ("too_old", None), ("update", [2.0]), ("too_old", None), ("no_snapshot_yet", None),
    ]  # fmt: skip


def test_each_label_has_the_first_reason_that_holds(spark: SparkSession) -> None:
    same, later = {"__update": (D, [2.0])}, {"__update": (D + timedelta(days=1), [3.0])}
    labels: list[dict[str, Any]] = [
        {"user_id": None, "label_at": None, **later},
        {"label_at": None, **later},
        same,  # of one date the snapshot is newer
        later,
        NO_SNAPSHOT | same,
        NO_SNAPSHOT,
        {"__in_sample": True},
        {"__state": "expired", "__embedding": None},
        {"__state": "expired", "__embedding": None, **later},
        {"__embedding": None},
    ]
    found = outputs(spark, labels, updates=True)
    assert [(row.embedding_status, row.snapshot_id, row.as_of, row.embedding) for row in found] == [
        ("null_user", "x", D, None),
        ("null_time", "x", D, None),
        ("found", "x", D, [1.0]),
        ("update", None, D + timedelta(days=1), [3.0]),
        ("update", None, D, [2.0]),
        ("no_snapshot_yet", None, None, None),
        ("in_sample", "x", D, [1.0]),
        ("expired", "x", D, None),
        ("update", None, D + timedelta(days=1), [3.0]),
        ("not_in_snapshot", "x", D, None),
    ]

"""Attributes that are not inputs: read from the users' table."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of, write_rows
from tests.support.evaluation_world import rows_at_all_dates
from userrep.errors import UsageError
from userrep.evaluation.tasks.attributes import read_attributes
from userrep.features.profiles import check_sources

pytestmark = pytest.mark.default


def test_attributes_are_read_for_the_users_of_the_rows(spark: SparkSession, tmp_path: Path) -> None:
    rows = rows_at_all_dates(40)
    table = [{"id": f"u{k:04d}", "Age": 20 + k, "home": {"town": "ab"[k % 2]}} for k in range(5, 60)]
    table += [{"id": "u0007", "Age": 90, "home": {"town": None}}, {"id": None, "Age": 1, "home": {"town": "c"}}]
    users = {"path": str(write_rows(tmp_path / "users" / "part.parquet", table)), "columns": {"user_id": "id"}}
    config = config_of(tmp_path, users=users, evaluation={"attributes": ["Age", "home.town"]})
    found = read_attributes(spark, config, rows)
    assert list(found) == ["age", "home_town"]
    known = {user: 20.0 + user for user in range(5, 40)} | {7: 90.0}
    edges = np.quantile(list(known.values()), [0.25, 0.5, 0.75])
    assert found["age"].to_pylist() == [
        str(sum((known[user] >= edge) + int(known[user] > edge) for edge in edges)) if user in known else None
        for user in range(40)
    ]
    assert found["home_town"].to_pylist() == [None] * 5 + ["ab"[k % 2] for k in range(5, 40)]
    assert read_attributes(spark, config_of(tmp_path), rows) == {}


def test_a_column_that_the_users_table_lacks_is_refused_with_those_there_are(
    spark: SparkSession, tmp_path: Path
) -> None:
    users = {"path": str(write_rows(tmp_path / "users" / "part.parquet", [{"id": "u1", "age": 3}])),
             "columns": {"user_id": "id"}}  # fmt: skip
    write_rows(tmp_path / "events" / "part.parquet", [{"user_id": "u1", "item_id": "i1", "event_at": None}])
    config = config_of(tmp_path, users=users, evaluation={"attributes": ["age", "gender"]})
    with pytest.raises(UsageError, match=r"evaluation.attributes\[1\]: no column 'gender'; columns found: id, age."):
        check_sources(spark, config)

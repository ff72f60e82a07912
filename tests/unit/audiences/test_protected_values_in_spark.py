"""Values of protected attributes in a users table of a catalog: those of the same table in files."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.audience_world import audience_world
from userrep.audiences.protected_values import read_protected
from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.errors import UsageError
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.default


def test_a_table_and_a_file_have_the_same_values(spark: SparkSession, tmp_path: Path) -> None:
    world = audience_world(tmp_path, num_users=200, dim=3)
    tables = FileTables(spark, world.tables.location)
    spark.read.parquet(str(world.users)).createOrReplaceTempView("people")
    users = SnapshotUsers(tables, world.made)
    found = [
        read_protected(settings, users)
        for settings in (world.settings("age"), world.settings("age", path="people", format="table"))
    ]
    assert found[0][0] == found[1][0]
    assert found[0][1].equals(found[1][1])
    assert len(found[0][1]) == 200
    with pytest.raises(UsageError, match=r"users.protected\[0\]: no column 'gender'; columns found: id, age\."):
        read_protected(world.settings("gender", path="people", format="table"), users)

"""Each kind of tables does what all do: as files, through Spark below a root, and in a schema of a catalog."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from tests.support.builders import conf_of
from tests.support.conformance import D1, D2, LEDGER, SHARES, Conformance, share
from userrep.errors import UsageError
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.default


class TestFileTables(Conformance):
    @pytest.fixture
    def tables(self, spark: SparkSession, tmp_path: Path) -> Tables:
        return FileTables(spark, str(tmp_path / "a b"))

    def test_a_large_partition_is_compacted_into_several_files(self, tables: FileTables) -> None:
        for name in "abc":
            tables.append(share(tables, D1, *(f"{name}{k:05d}" for k in range(20_000))), SHARES)
            tables.append(share(tables, D2, name), SHARES)
        before = sorted(map(tuple, tables.read(SHARES).collect()))
        small_tasks = conf_of(tables.spark, "spark.sql.files.maxPartitionBytes", "64kb")
        small_files = conf_of(tables.spark, "spark.sql.adaptive.advisoryPartitionSizeInBytes", "64kb")
        with small_tasks, small_files:
            assert tables.compact_partitions(SHARES, [{"day": D1}, {"day": D2}])
        num_files = [len(tables.files(SHARES, lambda values, day=day: values["day"] == day)) for day in (D1, D2)]
        assert 2 <= num_files[0] <= 10
        assert num_files[1] == 1
        assert sorted(map(tuple, tables.read(SHARES).collect())) == before


@pytest.mark.full
class TestSparkTablesBelowARoot(Conformance):
    @pytest.fixture
    def tables(self, spark: SparkSession, tmp_path: Path) -> Tables:
        return SparkTables(spark, artifacts=str(tmp_path))


class TestSparkTablesOfACatalog(Conformance):
    @pytest.fixture
    def tables(self, spark: SparkSession, tmp_path: Path) -> Iterator[Tables]:
        schema = f"s{uuid.uuid4().hex[:8]}"
        spark.sql(f"CREATE SCHEMA {schema} LOCATION '{tmp_path}/{schema}'")
        yield SparkTables(spark, schema=f"`spark_catalog`.`{schema}`", artifacts=str(tmp_path / "artifacts"))
        with suppress(AnalysisException):  # a Hive metastore reports what it has dropped as missing
            spark.sql(f"DROP SCHEMA {schema} CASCADE")

    def test_a_consumer_that_knows_the_schema_alone_finds_the_artifacts(self, tables: SparkTables) -> None:
        known = SparkTables(tables.spark, schema=tables.name(LEDGER).rpartition(".")[0])
        with pytest.raises(UsageError, match="no userrep tables at spark_catalog"):
            _ = known.artifacts_root
        tables.create(REGISTRY)
        assert known.artifacts_root == tables.artifacts_root

    def test_a_schema_that_does_not_exist_has_no_tables(self, spark: SparkSession, tmp_path: Path) -> None:
        nowhere = SparkTables(spark, schema="`spark_catalog`.`nowhere`", artifacts=str(tmp_path), expected=True)
        with pytest.raises(UsageError, match=r"no userrep tables at spark_catalog\.nowhere"):
            nowhere.ledger(LEDGER)

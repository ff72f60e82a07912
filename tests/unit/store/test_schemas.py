"""Table schemas: their types are read without Spark, and every table is listed and consistent."""

import re

import pytest
from pyspark.sql import types as T

from userrep.store import schemas
from userrep.store.schemas import ALL, TableSchema, user_features

pytestmark = pytest.mark.fast


def test_columns_of_every_kind_become_spark_types() -> None:
    table = TableSchema(
        "t",
        "one row per test",
        """name STRING, `odd` BINARY, flag BOOLEAN, small INT, num BIGINT, x FLOAT, y DOUBLE, day DATE,
        at TIMESTAMP, total DECIMAL(38,0), price DECIMAL(9,2), texts ARRAY<STRING>, cells MAP<INT,BIGINT>,
        nested ARRAY<MAP<DATE,FLOAT>>, last ARRAY<FLOAT>""",
    )
    nested = T.ArrayType(T.MapType(T.DateType(), T.FloatType()))
    assert [(field.name, field.dataType) for field in table.fields()] == [
        ("name", T.StringType()), ("odd", T.BinaryType()), ("flag", T.BooleanType()), ("small", T.IntegerType()),
        ("num", T.LongType()), ("x", T.FloatType()), ("y", T.DoubleType()), ("day", T.DateType()),
        ("at", T.TimestampType()), ("total", T.DecimalType(38, 0)), ("price", T.DecimalType(9, 2)),
        ("texts", T.ArrayType(T.StringType())), ("cells", T.MapType(T.IntegerType(), T.LongType())),
        ("nested", nested), ("last", T.ArrayType(T.FloatType())),
    ]  # fmt: skip
    assert all(field.nullable for field in table.fields())


def test_every_table_of_the_module_is_listed_once_under_its_own_name() -> None:
    defined = {name: value for name, value in vars(schemas).items() if isinstance(value, TableSchema)}
    assert set(ALL) == set(defined.values())
    assert {table.name for table in ALL if table not in schemas.LEDGERS} == {
        "user_item_days", "rejected_events", "item_index", "item_vectors", "user_profiles", "user_window_sums",
        "user_openings", "training_rows", "user_embeddings", "embedding_updates", "registry", "leases",
    }  # fmt: skip
    assert len(ALL) == len({table.name for table in ALL}) == len(defined)
    assert {name: table.name for name, table in defined.items()} == {name: name.lower() for name in defined}


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_a_table_has_a_grain_and_its_layout_names_its_own_columns(table: TableSchema) -> None:
    names = table.fields().names
    assert len(set(names)) == len(names)
    assert set(table.partition_by) < set(names)
    settings = [key.partition("#")[2] for key, _ in table.properties if "#" in key]
    assert set(settings) <= set(names) - set(table.partition_by)
    assert re.match("one row per ", " ".join(table.grain.split()))
    assert re.fullmatch("[a-z_]+", table.name)


def test_user_features_are_a_table_of_their_lineage_partitioned_by_date() -> None:
    table = user_features("l1", "num_events_7d FLOAT, pooled BINARY")
    assert (table.name, table.partition_by) == ("user_features_l1", ("as_of",))
    assert table.fields().names == ["as_of", "user_id", "num_events_7d", "pooled"]
    assert user_features("l2", "x FLOAT").name.startswith(schemas.USER_FEATURES)

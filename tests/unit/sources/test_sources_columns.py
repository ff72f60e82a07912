"""Columns of the owner's tables are found by name, or as fields of structs by dotted path."""

from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import types as T

from userrep.errors import UsageError
from userrep.sources.columns import check_columns, find_column, leaves, type_of

pytestmark = pytest.mark.fast

SCHEMA = T.StructType(
    [
        T.StructField(
            "user",
            T.StructType(
                [
                    T.StructField("id", T.LongType()),
                    T.StructField("geo.at", T.StructType([T.StructField("country", T.StringType())])),
                ]
            ),
        ),
        T.StructField("user.id", T.StringType()),
        T.StructField("track", T.StructType([T.StructField("tracking", T.StringType())])),
        T.StructField("tags", T.ArrayType(T.StructType([T.StructField("name", T.StringType())]))),
    ]
)
FRAME: Any = SimpleNamespace(schema=SCHEMA)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("user.id", ["user.id"]),  # the column of this name, not the field
        ("user.geo.at.country", ["user", "geo.at", "country"]),
        ("user", ["user"]),
        ("users.id", None),
        ("tracking", None),  # a field of a struct whose name it begins with
        ("user.", None),
        ("user.id.deeper", None),
        ("tags.name", None),  # fields within arrays are not found
    ],
)
def test_a_column_name_takes_precedence_over_a_path_into_structs(name: str, path: list[str] | None) -> None:
    found = find_column(SCHEMA, name)
    assert (found and found[0]) == path


def test_the_type_of_a_nested_column_is_that_of_its_last_field() -> None:
    assert type_of(FRAME, "user.geo.at.country") == T.StringType()
    assert type_of(FRAME, "user.id") == T.StringType()  # the column, not the field, which is a number


def test_leaves_are_listed_in_order_with_their_types() -> None:
    only_struct = T.StructType([SCHEMA["user"], SCHEMA["tags"]])
    assert list(leaves(only_struct).items()) == [
        ("user.id", "bigint"), ("user.geo.at.country", "string"), ("tags", "array<struct<name:string>>"),
    ]  # fmt: skip


def test_all_missing_columns_are_reported_together_with_the_columns_found() -> None:
    wanted = {"columns.user_id": "user.id", "columns.item_id": "song", "columns.weight": "user.weight"}
    with pytest.raises(UsageError) as caught:
        check_columns(FRAME.schema, wanted, "events")
    found = "columns found: user.id, user.geo.at.country, track.tracking, tags."
    assert caught.value.faults == [
        f"events.columns.item_id: no column 'song'; {found}",
        f"events.columns.weight: no column 'user.weight'; {found}",
    ]


def test_a_missing_column_like_another_one_names_it() -> None:
    with pytest.raises(UsageError) as caught:
        check_columns(
            T.StructType([T.StructField(name, T.StringType()) for name in ("user_id", "ts")]),
            {"columns.user_id": "userId"},
            "events",
        )
    assert caught.value.faults == [
        "events.columns.user_id: no column 'userId'; did you mean user_id? Columns found: user_id, ts."
    ]

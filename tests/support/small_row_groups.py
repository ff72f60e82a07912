"""A table of vectors in tiny row groups, with the partitions and properties that tasks write by."""

from userrep.store.schemas import TableSchema

SHARES = TableSchema(
    "shares",
    "one row per test",
    "day DATE, user_slice STRING, user_bucket INT, user_id STRING, x ARRAY<FLOAT>",
    ("day", "user_slice"),
    (("parquet.block.size", "4096"), ("parquet.enable.dictionary#user_bucket", "false")),
)

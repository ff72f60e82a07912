"""The type of a stream's records, with the log's own columns in ``raw``."""

import pyarrow as pa

RAW = pa.struct(
    [
        ("event_id", pa.string()), ("item_id", pa.string()), ("words", pa.string()), ("weight", pa.float64()),
        ("note", pa.string()), ("at", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip
RECORD = pa.struct(
    [
        ("kind", pa.string()), ("at", pa.timestamp("us", "UTC")), ("item_id", pa.string()), ("weight", pa.float64()),
        ("words", pa.list_(pa.string())), ("event_id", pa.string()), ("raw", RAW),
        ("registered_at", pa.timestamp("us", "UTC")), ("attributes", pa.list_(pa.string())),
    ]
)  # fmt: skip

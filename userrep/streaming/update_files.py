"""Files of ``embedding_updates``, written by the tasks that encode a micro-batch.

A write by Spark would take longer than the encoding, because its commit first runs a job to reconstruct the state of
the table.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from userrep.store.parquet_writer import TableWriter, Target
from userrep.streaming.encoding import Encoding

_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class UpdateFiles:
    """The function of a task: encode rows, write them to ``target`` and return one row per file."""

    encoding: Encoding
    target: Target
    query_id: str
    batch_id: int

    SCHEMA = "file STRING, newest_at TIMESTAMP, seconds ARRAY<DOUBLE>"

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write one file per space and as-of date, and describe each by a row with the columns of ``SCHEMA``.

        ``file`` is a ``TableFile`` as JSON. ``newest_at`` is the time of the newest event in the file. ``seconds`` has
        the latency of each of its rows, from arrival to vector.
        """
        writer, statistics = TableWriter(self.target), {}
        for rows in self.encoding(batches):
            values = {name: rows.column(name)[0].as_py() for name in self.target.partition_by}
            statistics[tuple(values.values())] = _statistics(rows)
            keyed = pa.Table.from_batches([rows]).append_column("query_id", pa.repeat(self.query_id, rows.num_rows))
            writer.write(keyed.append_column("batch_id", pa.repeat(self.batch_id, rows.num_rows)), values)
        files = [{"file": file.to_json()} | statistics[tuple(file.values.values())] for file in writer.close()]
        if files:
            yield pa.RecordBatch.from_pylist(files)


def _statistics(rows: pa.RecordBatch) -> dict[str, Any]:
    computed_at, arrived_at = (rows.column(name).cast(pa.int64()) for name in ("computed_at", "arrived_at"))
    seconds = pc.divide(pc.subtract(computed_at, arrived_at).cast(pa.float64()), _SECOND)
    return {"newest_at": pc.max(rows.column("event_at")).as_py(), "seconds": seconds.to_pylist()}

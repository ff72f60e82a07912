"""The vectors of a micro-batch as files of ``embedding_updates``, which the tasks that encode write themselves.

Spark would spend more time on its commit than tasks on the vectors: a job of its own works out the table's state first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Row

from userrep.store.table_files import TableFile
from userrep.store.table_writer import TableWriter, Target
from userrep.streaming.encoding import Encoding

_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class UpdateFiles:
    """Has tasks write what they encode, and return a row for each file. ``target``: the table of updates."""

    encoding: Encoding
    target: Target
    query_id: str
    batch_id: int

    SCHEMA = (
        "path STRING, size BIGINT, num_rows BIGINT, space_id STRING, as_of DATE, newest_at TIMESTAMP, "
        "seconds ARRAY<DOUBLE>"
    )

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write a file for each space and as-of date.

        ``newest_at``: the newest event in it; ``seconds``: of each of its rows, from arrival to vector.
        """
        writer, facts = TableWriter(self.target), {}
        for rows in self.encoding(batches):
            values = {name: rows.column(name)[0].as_py() for name in self.target.partition_by}
            facts[tuple(values.values())] = _facts(rows)
            keyed = pa.Table.from_batches([rows]).append_column("query_id", pa.repeat(self.query_id, rows.num_rows))
            writer.write(keyed.append_column("batch_id", pa.repeat(self.batch_id, rows.num_rows)), values)
        written = [
            {"path": file.path, "size": file.size, "num_rows": file.num_rows, **file.values}
            | facts[tuple(file.values.values())]
            for file in writer.close()
        ]
        if written:
            yield pa.RecordBatch.from_pylist(written)

    @staticmethod
    def file_of(row: Row) -> TableFile:
        """Read what a task has returned."""
        return TableFile(row.path, row.size, row.num_rows, {"space_id": row.space_id, "as_of": row.as_of})


def _facts(rows: pa.RecordBatch) -> dict[str, Any]:
    computed_at, arrived_at = (rows.column(name).cast(pa.int64()) for name in ("computed_at", "arrived_at"))
    seconds = pc.divide(pc.subtract(computed_at, arrived_at).cast(pa.float64()), _SECOND)
    return {"newest_at": pc.max(rows.column("event_at")).as_py(), "seconds": seconds.to_pylist()}

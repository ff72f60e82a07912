"""Table files written by the tasks themselves, for the driver to commit."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import Row

from userrep.features.sums.pooling import Output, OutputRows
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.data_files import TableFile
from userrep.store.parquet_writer import TableWriter, Target


class Destination(NamedTuple):
    """The target of an output, and the values of the partition columns that all of its rows share."""

    target: Target
    values: Mapping[str, Any]


class Written(NamedTuple):
    """A file written by a task. Features have ``as_of`` and ``num_inexact``, the rows whose sums are not exact."""

    output: Output
    as_of: date | None
    file: TableFile
    num_inexact: int

    @classmethod
    def of(cls, row: Row) -> "Written":
        """Read a row returned by ``Writing``."""
        return cls(row.output, row.as_of, TableFile.from_json(row.file), row.num_inexact)


@dataclass(frozen=True)
class Writing:
    """Writes the outputs of a task to files and returns a row for each file."""

    destinations: dict[Output, Destination]
    num_ranges: int

    SCHEMA = "output STRING, as_of DATE, file STRING, num_inexact BIGINT"

    def __call__(self, outputs: Iterable[OutputRows]) -> Iterator[pa.RecordBatch]:
        writers = {output: TableWriter(destination.target) for output, destination in self.destinations.items()}
        num_inexact: dict[date | None, int] = defaultdict(int)
        for output, as_of, rows in outputs:
            if not rows.num_rows:
                continue
            target, values = self.destinations[output]
            user_slice = self._slice(rows) if "user_slice" in target.partition_by else ""
            table = pa.Table.from_batches([rows])
            writers[output].write(table, {**values, "as_of": as_of, "user_slice": user_slice})
            if output == "features":
                num_inexact[as_of] += rows.column("is_exact").false_count
        files = [(output, file) for output, writer in writers.items() for file in writer.close()]
        if files:
            yield pa.RecordBatch.from_pylist(
                [
                    {
                        "output": output,
                        "as_of": file.values.get("as_of"),
                        "file": file.to_json(),
                        "num_inexact": num_inexact[file.values.get("as_of")],
                    }
                    for output, file in files
                ]
            )

    def _slice(self, rows: pa.RecordBatch) -> str:
        number = rows.column("user_bucket")[0].as_py() // (NUM_BUCKETS // self.num_ranges)
        return f"{number}-of-{self.num_ranges}"

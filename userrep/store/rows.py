"""Rows of ledgers, from Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import Row


def arrow_rows(table: pa.Table) -> list[Row]:
    """Return the rows of an Arrow table, with times as naive UTC, whatever the time zone of this process."""
    naive = [f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    records = table.cast(pa.schema(naive)).to_pylist(maps_as_pydicts="strict")
    return cast("list[Row]", list(map(LedgerRow, records)))


class LedgerRow(tuple[Any, ...]):
    """A row with the interface of ``pyspark.sql.Row``: a tuple with the names of the columns as attributes."""

    __fields__: list[str]

    def __new__(cls, record: Mapping[str, Any]) -> LedgerRow:
        row = super().__new__(cls, record.values())
        row.__fields__ = list(record)
        return row

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__fields__:
            raise AttributeError(name)
        return self[self.__fields__.index(name)]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.__fields__.index(key) if isinstance(key, str) else key)

    def asDict(self) -> dict[str, Any]:  # as in Spark
        """Return the values by column."""
        return dict(zip(self.__fields__, self, strict=True))

    def __reduce__(self) -> tuple[type[LedgerRow], tuple[dict[str, Any]]]:
        return LedgerRow, (self.asDict(),)

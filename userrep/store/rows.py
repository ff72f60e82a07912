"""Rows of ledgers that are read without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pyspark.sql import Row


def rows_of(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return records as rows that look like those of Spark: tuples with the names of the columns as attributes."""
    return cast("list[Row]", [LedgerRow(record) for record in records])


class LedgerRow(tuple[Any, ...]):
    """A row with the interface of ``pyspark.sql.Row``."""

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

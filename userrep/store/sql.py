"""Values as SQL: dates, numbers, and names that were checked before."""

from collections.abc import Mapping, Sequence
from datetime import date


def sql_date(day: date) -> str:
    """Write a date as a SQL literal."""
    return f"DATE'{day:%Y-%m-%d}'"


def sql_in(column: str, values: list[str] | list[date]) -> str:
    """Write ``column IN (...)`` for checked names or dates; false where there is no value."""
    if not values:
        return "false"
    return f"{column} IN ({', '.join(map(_sql, values))})"


def sql_key(key: Mapping[str, str | date | int]) -> str:
    """Write the condition that columns have these values, checked names, dates or numbers."""
    return " AND ".join(f"{name} = {_sql(value)}" for name, value in key.items())


def sql_any(keys: Sequence[Mapping[str, str | date | int]]) -> str:
    """Write the condition that columns have the values of one of some keys; a key without a column matches all rows."""
    return " OR ".join(f"({sql_key(key) or 'true'})" for key in keys) or "false"


def _sql(value: str | date | int) -> str:
    if isinstance(value, date):
        return sql_date(value)
    return str(value) if isinstance(value, int) else f"'{value}'"

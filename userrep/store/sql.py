"""SQL identifiers, and literals and predicates from dates, numbers and validated names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date


def sql_name(column: str) -> str:
    """Return a column's name as a SQL identifier; it may contain dots and backticks."""
    return f"`{column.replace('`', '``')}`"


def sql_date(day: date) -> str:
    """Return a date as a SQL literal."""
    return f"DATE'{day:%Y-%m-%d}'"


def sql_in(column: str, values: list[str] | list[date]) -> str:
    """Return the predicate ``column IN (...)`` for validated names or dates; ``false`` if there are no values."""
    if not values:
        return "false"
    return f"{column} IN ({', '.join(map(_sql, values))})"


def sql_key(key: Mapping[str, str | date | int]) -> str:
    """Return the predicate that all columns of ``key`` equal their values: validated names, dates or numbers."""
    return " AND ".join(f"{name} = {_sql(value)}" for name, value in key.items())


def sql_any(keys: Sequence[Mapping[str, str | date | int]]) -> str:
    """Return the predicate that a row matches any of the keys. An empty key matches all rows; no keys match none.

    Keys that differ only in a date share one list of dates, and ORs are nested as a balanced tree: the parser of
    delta-rs overflows its stack at some thousand ORs in a row.
    """
    if not all(keys):
        return "true"
    dates_by_rest: dict[tuple[str, str], list[date]] = defaultdict(list)
    parts = []
    for key in keys:
        dates = {name: value for name, value in key.items() if isinstance(value, date)}
        if dates:
            column, day = dates.popitem()
            rest = sql_key({name: value for name, value in key.items() if name != column})
            dates_by_rest[rest, column].append(day)
        else:
            parts.append(sql_key(key))
    for (rest, column), days in dates_by_rest.items():
        parts.append(f"{rest} AND {sql_in(column, days)}" if rest else sql_in(column, days))
    return _any(parts)


def _any(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return f"({parts[0]})" if parts else "false"
    middle = len(parts) // 2
    return f"({_any(parts[:middle])} OR {_any(parts[middle:])})"


def _sql(value: str | date | int) -> str:
    if isinstance(value, date):
        return sql_date(value)
    return str(value) if isinstance(value, int) else f"'{value}'"

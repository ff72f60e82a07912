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


def sql_in(column: str, values: Sequence[str | date | int]) -> str:
    """Return the predicate ``column IN (...)`` for validated names, dates or numbers; ``false`` if there are none."""
    if not values:
        return "false"
    return f"{column} IN ({', '.join(map(_sql, values))})"


def sql_key(key: Mapping[str, str | date | int]) -> str:
    """Return the predicate that all columns of ``key`` equal their values: validated names, dates or numbers."""
    return " AND ".join(f"{name} = {_sql(value)}" for name, value in key.items())


def sql_any(keys: Sequence[Mapping[str, str | date | int]]) -> str:
    """Return the predicate that a row matches any of the keys. An empty key matches all rows; no keys match none.

    Keys that differ only in a date, or without one only in the last column, share one list. ORs are nested as a
    balanced tree: the parser of delta-rs overflows its stack at some thousand ORs in a row.
    """
    if not all(keys):
        return "true"
    values_by_rest: dict[tuple[str, str], list[str | date | int]] = defaultdict(list)
    for key in keys:
        *rest, (column, value) = sorted(key.items(), key=lambda item: isinstance(item[1], date))  # a date comes last
        values_by_rest[sql_key(dict(rest)), column].append(value)
    lists = [(rest, sql_in(column, values)) for (rest, column), values in values_by_rest.items()]
    return _any([f"{rest} AND {any_value}" if rest else any_value for rest, any_value in lists])


def _any(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return f"({parts[0]})" if parts else "false"
    middle = len(parts) // 2
    return f"({_any(parts[:middle])} OR {_any(parts[middle:])})"


def _sql(value: str | date | int) -> str:
    if isinstance(value, date):
        return sql_date(value)
    return str(value) if isinstance(value, int) else f"'{value}'"

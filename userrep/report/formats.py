"""Formats numbers, times and sizes for people. Times are UTC."""

from datetime import date, datetime
from math import isfinite

NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: float) -> str:
    """Format a count: 1,234,567."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Format a count in few characters: 1,234, 12.3 k, 4.5 M."""
    for least, size, unit in ((999.5e9, 1e12, "T"), (999.5e6, 1e9, "G"), (999.5e3, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(number) >= least:  # from where the smaller unit would be rounded to 1000
            return f"{number / size:.3g} {unit}"
    return f"{number:,.3g}" if isinstance(number, float) and abs(number) < 100 else f"{number:,.0f}"


def share(part: float) -> str:
    """Format a share as a percentage: 26%, 3.5%, 0.52%, < 0.01%."""
    if not part:
        return "0%"
    return f"{part:.0%}" if part >= 0.1 else f"{100 * part:.2g}%" if part >= 1e-4 else "< 0.01%"


def figure(number: float | None, digits: int = 3) -> str:
    """Format a measured number; a dash for None and for numbers that are not finite."""
    return NONE if number is None or not isfinite(number) else f"{number:.{digits}f}"


def signed(number: float | None, digits: int = 3) -> str:
    """Format a difference with its sign; a dash for None and for numbers that are not finite."""
    return NONE if number is None or not isfinite(number) else f"{number:+.{digits}f}".replace("-", MINUS)


def seconds(number: float) -> str:
    """Format a duration: 4.2 s, 38 s, 12 min 5 s, 3 h 20 min."""
    if number < 60:
        return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600:,} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def size(num_bytes: float) -> str:
    """Format a number of bytes in decimal units: 512 B, 3.4 MB."""
    unit = 0
    while num_bytes >= 999.5 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.0f} {_UNITS[unit]}" if unit == 0 or num_bytes >= 100 else f"{num_bytes:.1f} {_UNITS[unit]}"


def core_time(hours: float, largest: float) -> str:
    """Format core hours, or core seconds if the largest value of the same list is below a tenth of an hour."""
    return f"{3600 * hours:,.1f} core s" if largest < 0.1 else f"{hours:,.2f} core h"


def core_hours(hours: float | None) -> str:
    """Format core hours for a table; a dash for None."""
    return NONE if hours is None else f"{hours:,.5f}"


def when(time: datetime | None) -> str:
    """Format a time to the minute, without its zone: the page states once that all times are UTC."""
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M}"


def day(date_or_none: date | None) -> str:
    """Format a date; a dash for None."""
    return NONE if date_or_none is None else f"{date_or_none:%Y-%m-%d}"

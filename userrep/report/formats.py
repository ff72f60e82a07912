"""Numbers, times and sizes as a reader wants them; times are UTC."""

from datetime import date, datetime
from math import isfinite

NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: float) -> str:
    """Write a count: 1,234,567."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Write a count in few signs: 1,234, 12.3 k, 4.5 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{number:,.3g}" if isinstance(number, float) and abs(number) < 100 else f"{number:,.0f}"


def share(part: float) -> str:
    """Write a share in per cent, with a digit more where it is small."""
    if not part:
        return "0 %"
    return f"{part:.0%}".replace("%", " %") if part >= 0.1 else f"{100 * part:.2g} %" if part >= 1e-4 else "< 0.01 %"


def figure(number: float | None, digits: int = 3) -> str:
    """Write a measured number; a dash for none."""
    return NONE if number is None or not isfinite(number) else f"{number:.{digits}f}"


def signed(number: float | None, digits: int = 3) -> str:
    """Write a difference with its sign; a dash for none."""
    return NONE if number is None or not isfinite(number) else f"{number:+.{digits}f}".replace("-", MINUS)


def seconds(number: float) -> str:
    """Write a duration: 4.2 s, 38 s, 12 min 5 s, 3 h 20 min."""
    if number < 60:
        return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600:,} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def size(num_bytes: float) -> str:
    """Write bytes in decimal units: 512 B, 3.4 MB."""
    unit = 0
    while num_bytes >= 999.5 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.0f} {_UNITS[unit]}" if unit == 0 or num_bytes >= 100 else f"{num_bytes:.1f} {_UNITS[unit]}"


def core_time(hours: float, largest: float) -> str:
    """Write core hours; of lists whose largest is less than a tenth of an hour, core seconds."""
    return f"{3600 * hours:,.1f} core s" if largest < 0.1 else f"{hours:,.2f} core h"


def core_hours(hours: float | None) -> str:
    """Write core hours for a table; a dash for none."""
    return NONE if hours is None else f"{hours:,.5f}"


def when(time: datetime | None) -> str:
    """Write a time to the minute; the page says once that all are UTC."""
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M}"


def day(of: date | None) -> str:
    """Write a date; a dash for none."""
    return NONE if of is None else f"{of:%Y-%m-%d}"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

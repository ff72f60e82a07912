"""Charts as inline SVG: this module computes where the marks are, and the macros of charts.html draw them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, floor, isfinite, log10
from typing import Any

from markupsafe import Markup

from userrep.report.templates import templates


@dataclass(frozen=True)
class Mark:
    """A point or column: its height, tooltip and CSS class. ``is_marked``: draw a warning dot above it."""

    value: float
    title: str
    css: str = "c0"
    is_marked: bool = False


@dataclass(frozen=True)
class Row:
    """A value with its interval, on its own line. An end that is None or not finite is not known.

    ``name`` is on the left with ``note`` below it, ``text`` on the right, ``title`` in the tooltip.
    """

    name: str
    value: float
    text: str
    title: str = ""
    css: str = "c0"
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def ends(self) -> list[float]:
        """Both ends of the interval, each of them the value itself if it is not known."""
        return [self.value if end is None or not isfinite(end) else end for end in (self.low, self.high)]


def columns(marks: Sequence[Mark], names: Sequence[str], *, label: str, write: Callable[[float], str]) -> Markup:
    """Draw a column for each mark, starting at zero. ``names``: of the columns; first, middle and last are shown."""
    scale = _scale(max((mark.value for mark in marks), default=0), write=write)
    ends = [names[0], names[len(names) // 2], names[-1]] if len(names) > 2 else names
    return _drawn("columns", scale=scale, marks=marks, ends=ends, label=label)


def lines(
    curves: Mapping[str, Sequence[Mark | None]], names: Sequence[str], *, label: str, write: Callable[[float], str],
    positions: Sequence[float] | None = None, limits: Mapping[str, float | None] | None = None,
    least: float = 0, ticks: Sequence[float] | None = None, height: int = 170, is_joined: bool = True,
) -> Markup:  # fmt: skip
    """Draw curves of points, joined by lines if ``is_joined``.

    ``curves``: by CSS class, a mark for each point; None: not drawn. ``names``: of the points; the first and the last
    are below the axis. ``positions``: of the points, in [0, 1]; by default at equal distances, with half of one at both
    ends. ``limits``: values of dashed horizontal lines by CSS class; None: no line. ``least``: the value at the bottom.
    ``ticks``: values labeled on the axis, by default round numbers.
    """
    if positions is None:
        positions = [(k + 0.5) / len(names) for k in range(len(names))]
    known = {css: limit for css, limit in (limits or {}).items() if limit is not None}
    points = {
        css: [(x, mark) for x, mark in zip(positions, marks, strict=True) if mark] for css, marks in curves.items()
    }
    values = [mark.value for marks in points.values() for _, mark in marks] + [*known.values()]
    scale = _scale(max(values, default=0), least=least, write=write, ticks=ticks, height=height)
    ends = [names[0], names[-1]] if len(names) > 1 else names
    return _drawn("lines", scale=scale, curves=points, limits=known, ends=ends, label=label, is_joined=is_joined)


def intervals(
    rows: Sequence[Row], *, label: str, reference: float | None = None, write: Callable[[float], str]
) -> Markup:
    """Draw each row's value as a dot on its interval, all on one scale. Rows without a finite value are left out.

    ``reference``: a value that is on the scale, with a line of its own.
    """
    rows = [row for row in rows if isfinite(row.value)]
    references = [] if reference is None else [reference]
    ends = [end for row in rows for end in (*row.ends, row.value)] + references
    low, high = min(ends, default=0), max(ends, default=1)
    margin = (high - low or 1) * 0.04
    low, high = low - margin, high + margin
    round_numbers = _ticks(low, high, 4)
    near = 0.6 * (round_numbers[1] - round_numbers[0])  # so that labels do not overlap
    ticks = [
        (tick, write(tick), "grid")
        for tick in round_numbers
        if low <= tick <= high and all(abs(tick - line) > near for line in references)
    ]
    ticks += [(line, write(line), "reference") for line in references]
    return _drawn(
        "intervals", rows=rows, ticks=ticks, x=lambda value: round(100 * (value - low) / (high - low), 2), label=label
    )


def scatter(groups: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], *, label: str) -> Markup:
    """Draw groups of points (name, CSS class, points) with equal scales in x and y. Small groups are on top."""
    xs, ys = zip(*(point for _, _, points in groups for point in points), strict=True)
    left, top = min(xs), max(ys)
    width, height = max(max(xs) - left, 0.2), max(top - min(ys), 0.2)
    in_order = sorted(groups, key=lambda group: -len(group[2]))
    return _drawn("scatter", groups=in_order, left=left, top=top, width=width, height=height, label=label)


def positions(dates: Sequence[date]) -> list[float]:
    """Return the positions of sorted dates in [0, 1], between the first and the last."""
    span = max(1, (dates[-1] - dates[0]).days) if dates else 1
    return [(day - dates[0]).days / span for day in dates]


@dataclass(frozen=True)
class _Scale:
    """Maps values to pixels from the top. ``ticks``: values with their labels."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    height: int
    top: int = 10  # pixels above the plot

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def axis_width(self) -> int:
        return 8 + 7 * max((len(text) for _, text in self.ticks), default=0)

    def y(self, value: float) -> float:
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.bottom - self.height * part, 1)


def _scale(
    top: float, *, write: Callable[[float], str], least: float = 0, ticks: Sequence[float] | None = None,
    height: int = 170,
) -> _Scale:  # fmt: skip
    high = least + 1.05 * ((top - least) or 1.0)
    candidates = _ticks(least, high, 1 + height // 40) if ticks is None else ticks
    return _Scale(least, high, [(tick, write(tick)) for tick in candidates if least <= tick <= high], height)


def _ticks(low: float, high: float, num: int) -> list[float]:
    """Return round numbers that span ``low`` to ``high`` in about ``num`` steps."""
    rough = (high - low) / max(1, num)
    size = 10.0 ** floor(log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    return [k * step for k in range(floor(low / step), ceil(high / step) + 1)]


def _drawn(macro: str, **values: Any) -> Markup:
    drawn: Markup = getattr(templates().get_template("charts.html").module, macro)(**values)
    return drawn

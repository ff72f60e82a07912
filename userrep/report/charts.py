"""Charts as inline SVG without scripts. Colors are CSS classes of the page.

Horizontal positions are percentages, so on a narrow screen marks move closer together while text keeps its size.
``Markup.format`` escapes every value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, floor, log10

from markupsafe import Markup

_TOP, _BELOW = 10, 24  # pixels above the plot, and below it for labels
_EDGE = 1.5  # percent of the width left free at both ends, so that marks are not cut off
_NOTHING = Markup("")
_BAR = Markup(
    '<rect class="track" width="100%" height="14" rx="2"/><rect class="{}" width="{:.2f}%" height="14" rx="2"/>'
)


@dataclass(frozen=True)
class Mark:
    """A point or column: its height, tooltip and CSS class. ``is_marked``: draw a warning dot above it."""

    value: float
    title: str
    css: str = "c0"
    is_marked: bool = False


@dataclass(frozen=True)
class Series:
    """Marks with their horizontal positions in [0, 1]."""

    name: str
    positions: Sequence[float]
    marks: Sequence[Mark]
    css: str


@dataclass(frozen=True)
class Row:
    """A bar, or a value with its interval, on its own line.

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


def columns(marks: Sequence[Mark], ends: Sequence[str], *, label: str, write: Callable[[float], str]) -> Markup:
    """Draw a column for each mark, starting at zero. ``ends``: labels below the axis, from left to right."""
    scale = _Scale.to(max((mark.value for mark in marks), default=0), write=write)
    width = 100 / max(1, len(marks))
    drawn = [
        Markup(
            '<g><title>{}</title><rect class="hit" x="{:.3f}%" y="{}" width="{:.3f}%" height="{}"/>'
            '<rect class="{}" x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="{:.1f}"/>{}</g>'
        ).format(
            mark.title, k * width, _TOP, width, scale.height, mark.css, (k + 0.1) * width, scale.y(mark.value),
            0.8 * width, _TOP + scale.height - scale.y(mark.value),
            Markup('<circle class="warn" cx="{:.3f}%" cy="5" r="3"/>').format((k + 0.5) * width)
            if mark.is_marked else _NOTHING,
        )
        for k, mark in enumerate(marks)
    ]  # fmt: skip
    return _framed(scale, _NOTHING.join(drawn), ends, label=label)


def lines(
    series: Sequence[Series], ends: Sequence[str], *, label: str, write: Callable[[float], str], least: float = 0,
    limits: Sequence[tuple[float, str]] = (), ticks: Sequence[float] | None = None, height: int = 170,
    is_joined: bool = True,
) -> Markup:  # fmt: skip
    """Draw series of points, joined by lines if ``is_joined``.

    ``least``: the value at the bottom. ``limits``: values and CSS classes of dashed horizontal lines. ``ticks``: values
    labeled on the axis, by default round numbers.
    """
    values = [mark.value for curve in series for mark in curve.marks]
    top = max([*values, *(limit for limit, _ in limits)], default=0)
    scale = _Scale.to(top, least=least, write=write, ticks=ticks, height=height)
    drawn = [
        Markup('<line class="limit {}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>').format(css, y=scale.y(limit))
        for limit, css in limits
    ]
    for curve in series:
        points = [
            (_EDGE + (100 - 2 * _EDGE) * position, scale.y(mark.value))
            for position, mark in zip(curve.positions, curve.marks, strict=True)
        ]
        if is_joined:
            path = " ".join(f"{'L' if k else 'M'}{x:.2f} {y - _TOP:.1f}" for k, (x, y) in enumerate(points))
            drawn.append(
                Markup(
                    '<svg class="stretched" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 100 {h}" '
                    'preserveAspectRatio="none"><path class="line {}" d="{}"/></svg>'
                ).format(_TOP, curve.css, path, h=scale.height)
            )
        drawn += [
            Markup('<g><title>{}</title><circle class="hit" cx="{x:.2f}%" cy="{y:.1f}" r="9"/>'
                   '<circle class="{}" cx="{x:.2f}%" cy="{y:.1f}" r="3"/></g>').format(mark.title, mark.css, x=x, y=y)
            for (x, y), mark in zip(points, curve.marks, strict=True)
        ]  # fmt: skip
    return _framed(scale, _NOTHING.join(drawn), ends, label=label)


def bars(rows: Sequence[Row], *, label: str) -> Markup:
    """Draw a horizontal bar for each row, all on one scale that starts at zero."""
    top = max((row.value for row in rows), default=0) or 1
    drawn = [_row(row, _BAR.format(row.css, 100 * row.value / top), 14) for row in rows]
    return Markup('<div class="rows" role="group" aria-label="{}">{}</div>').format(label, _NOTHING.join(drawn))


def intervals(rows: Sequence[Row], *, label: str, zero: bool, write: Callable[[float], str]) -> Markup:
    """Draw each row's value as a dot on its interval, all on one scale. ``zero``: include a line at zero."""
    ends = [end for row in rows for end in (row.low, row.high, row.value) if end is not None] + [0.0] * zero
    low, high = min(ends, default=0), max(ends, default=1)
    margin = (high - low or 1) * 0.04
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return 100 * (value - low) / (high - low)

    grid = [tick for tick in _ticks(low, high, 4) if low <= tick <= high]
    behind = _NOTHING.join(
        Markup('<line class="{}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="22"/>').format(
            "zero" if zero and abs(tick) < 1e-12 else "grid", x=x(tick)
        )
        for tick in grid
    )
    drawn = [
        _row(
            row,
            behind + Markup('<line class="span {css}" x1="{:.2f}%" x2="{:.2f}%" y1="11" y2="11"/>'
                            '<circle class="{css}" cx="{:.2f}%" cy="11" r="4.5"/>').format(
                x(row.value if row.low is None else row.low), x(row.value if row.high is None else row.high),
                x(row.value), css=row.css),
            22,
        )
        for row in rows
    ]  # fmt: skip
    texts = _NOTHING.join(
        Markup('<text x="{:.2f}%" y="13" text-anchor="middle">{}</text>').format(x(tick), write(tick)) for tick in grid
    )
    axis = Markup('<div class="row axis-row" aria-hidden="true"><svg height="18">{}</svg></div>').format(texts)
    return Markup('<div class="rows" role="group" aria-label="{}">{}{}</div>').format(label, _NOTHING.join(drawn), axis)


def scatter(groups: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], *, label: str) -> Markup:
    """Draw groups of points (name, CSS class, points) with equal scales in x and y. Small groups are on top."""
    points = [point for _, _, group_points in groups for point in group_points]
    x_low, x_high = (end(x for x, _ in points) for end in (min, max))
    y_low, y_high = (end(y for _, y in points) for end in (min, max))
    width, height = 1000 * max(x_high - x_low, 0.2), 1000 * max(y_high - y_low, 0.2)
    drawn = [
        Markup('<path class="dots {}" d="{}"><title>{}</title></path>').format(
            css, "".join(f"M{1000 * (x - x_low):.0f} {1000 * (y_high - y):.0f}h0" for x, y in group_points), name
        )
        for name, css, group_points in sorted(groups, key=lambda group: -len(group[2]))
    ]
    return Markup('<svg class="map" role="img" aria-label="{}" viewBox="{} {} {:.0f} {:.0f}">{}</svg>').format(
        label, -20, -20, width + 40, height + 40, _NOTHING.join(drawn)
    )


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

    @classmethod
    def to(
        cls, top: float, *, write: Callable[[float], str], least: float = 0, ticks: Sequence[float] | None = None,
        height: int = 170,
    ) -> "_Scale":  # fmt: skip
        span = (top - least) or 1.0
        high = least + 1.05 * span
        candidates = _ticks(least, high, 1 + height // 40) if ticks is None else ticks
        return cls(least, high, [(tick, write(tick)) for tick in candidates if least <= tick <= high], height)

    def y(self, value: float) -> float:
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _TOP + self.height * (1 - part)


def _ticks(low: float, high: float, num: int) -> list[float]:
    """Return round numbers that span ``low`` to ``high`` in about ``num`` steps."""
    rough = (high - low) / max(1, num)
    size = 10.0 ** floor(log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    return [k * step for k in range(floor(low / step), ceil(high / step) + 1)]


def _framed(scale: _Scale, drawn: Markup, ends: Sequence[str], *, label: str) -> Markup:
    """Add axes to a chart: tick labels in a separate SVG on the left, and ``ends`` below."""
    axis_width = 8 + 7 * max((len(text) for _, text in scale.ticks), default=0)
    texts = _NOTHING.join(
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(axis_width - 8, scale.y(tick) + 4, text)
        for tick, text in scale.ticks
    )
    grid = _NOTHING.join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>').format(y=scale.y(tick))
        for tick, _ in scale.ticks
    )
    full = _TOP + scale.height + (_BELOW if ends else 6)
    last = max(1, len(ends) - 1)
    below = _NOTHING.join(
        Markup('<text x="{:.1f}%" y="{}" text-anchor="{}">{}</text>').format(
            100 * k / last, full - 6, "start" if k == 0 else "end" if k == last else "middle", text
        )
        for k, text in enumerate(ends)
    )
    return Markup(
        '<div class="plot"><svg class="y" width="{}" height="{h}" aria-hidden="true">{}</svg>'
        '<svg class="area" role="img" aria-label="{}" width="100%" height="{h}">{}{}{}</svg></div>'
    ).format(axis_width, texts, label, grid, drawn, below, h=full)


def _row(row: Row, drawn: Markup, height: int) -> Markup:
    title = Markup("<title>{}</title>").format(row.title) if row.title else _NOTHING
    note = Markup("<small>{}</small>").format(row.note) if row.note else _NOTHING
    return Markup(
        '<div class="row"><span class="name">{}{}</span><svg height="{}" aria-hidden="true">{}{}</svg>'
        '<span class="text">{}</span></div>'
    ).format(row.name, note, height, title, drawn, row.text)

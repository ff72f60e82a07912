"""Charts as inline SVG without scripts: positions across in per cent, text as text, colours by class from the page.

Nothing is scaled but positions: on a phone marks move closer together, and text stays as large as it is. Whatever
enters is escaped by ``Markup.format``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, floor, log10

from markupsafe import Markup

_TOP, _BELOW = 10, 24  # pixels above the plot, and below it for labels
_EDGE = 1.5  # per cent left free at both ends, for marks to stand in
_NOTHING = Markup("")
_BAR = Markup(
    '<rect class="track" width="100%" height="14" rx="2"/><rect class="{}" width="{:.2f}%" height="14" rx="2"/>'
)


@dataclass(frozen=True)
class Mark:
    """A point or column: how high, what is said of it, the class that colours it. ``is_marked``: with a dot above."""

    value: float
    title: str
    css: str = "c0"
    is_marked: bool = False


@dataclass(frozen=True)
class Series:
    """Values at places in [0, 1]."""

    name: str
    places: Sequence[float]
    marks: Sequence[Mark]
    css: str


@dataclass(frozen=True)
class Row:
    """A bar, or a value with its interval, on a line of its own between its name and its figure."""

    name: str
    value: float
    said: str
    title: str = ""
    css: str = "c0"
    low: float | None = None
    high: float | None = None
    note: str = ""


def columns(marks: Sequence[Mark], ends: Sequence[str], *, label: str, write: Callable[[float], str]) -> Markup:
    """Draw a column for each mark, from zero up. ``ends``: what stands below, from left to right."""
    scale = _Scale.to(max((of.value for of in marks), default=0), write=write)
    width = 100 / max(1, len(marks))
    drawn = [
        Markup(
            '<g><title>{}</title><rect class="hit" x="{:.3f}%" y="{}" width="{:.3f}%" height="{}"/>'
            '<rect class="{}" x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="{:.1f}"/>{}</g>'
        ).format(
            of.title, k * width, _TOP, width, scale.height, of.css, (k + 0.1) * width, scale.y(of.value), 0.8 * width,
            _TOP + scale.height - scale.y(of.value),
            Markup('<circle class="warn" cx="{:.3f}%" cy="5" r="3"/>').format((k + 0.5) * width)
            if of.is_marked else _NOTHING,
        )
        for k, of in enumerate(marks)
    ]  # fmt: skip
    return _framed(scale, _NOTHING.join(drawn), ends, label=label)


def lines(
    series: Sequence[Series], ends: Sequence[str], *, label: str, write: Callable[[float], str], least: float = 0,
    limits: Sequence[tuple[float, str]] = (), ticks: Sequence[float] | None = None, height: int = 170,
    is_joined: bool = True,
) -> Markup:  # fmt: skip
    """Draw series of points, joined by lines; ``limits`` as dashed lines across, each with a class.

    ``ticks``: where the axis has figures, if not at round numbers.
    """
    values = [mark.value for of in series for mark in of.marks]
    top = max([*values, *(limit for limit, _ in limits)], default=0)
    scale = _Scale.to(top, least=least, write=write, ticks=ticks, height=height)
    drawn = [
        Markup('<line class="limit {}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>').format(css, y=scale.y(limit))
        for limit, css in limits
    ]
    for of in series:
        at = [
            (_EDGE + (100 - 2 * _EDGE) * place, scale.y(mark.value))
            for place, mark in zip(of.places, of.marks, strict=True)
        ]
        if is_joined:
            path = " ".join(f"{'L' if k else 'M'}{x:.2f} {y - _TOP:.1f}" for k, (x, y) in enumerate(at))
            drawn.append(
                Markup(
                    '<svg class="stretched" x="0" y="{}" width="100%" height="{h}" viewBox="0 0 100 {h}" '
                    'preserveAspectRatio="none"><path class="line {}" d="{}"/></svg>'
                ).format(_TOP, of.css, path, h=scale.height)
            )
        drawn += [
            Markup('<g><title>{}</title><circle class="hit" cx="{x:.2f}%" cy="{y:.1f}" r="9"/>'
                   '<circle class="{}" cx="{x:.2f}%" cy="{y:.1f}" r="3"/></g>').format(mark.title, mark.css, x=x, y=y)
            for (x, y), mark in zip(at, of.marks, strict=True)
        ]  # fmt: skip
    return _framed(scale, _NOTHING.join(drawn), ends, label=label)


def bars(rows: Sequence[Row], *, label: str) -> Markup:
    """Draw a horizontal bar for each row, all to one scale from zero."""
    top = max((of.value for of in rows), default=0) or 1
    drawn = [_row(of, _BAR.format(of.css, 100 * of.value / top), 14) for of in rows]
    return Markup('<div class="rows" role="group" aria-label="{}">{}</div>').format(label, _NOTHING.join(drawn))


def intervals(rows: Sequence[Row], *, label: str, zero: bool, write: Callable[[float], str]) -> Markup:
    """Draw each row's value as a dot on its interval, all to one scale; ``zero``: with a line at it."""
    ends = [end for of in rows for end in (of.low, of.high, of.value) if end is not None] + [0.0] * zero
    low, high = min(ends, default=0), max(ends, default=1)
    room = (high - low or 1) * 0.04
    low, high = low - room, high + room

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
            of,
            behind + Markup('<line class="span {css}" x1="{:.2f}%" x2="{:.2f}%" y1="11" y2="11"/>'
                            '<circle class="{css}" cx="{:.2f}%" cy="11" r="4.5"/>').format(
                x(of.value if of.low is None else of.low), x(of.value if of.high is None else of.high), x(of.value),
                css=of.css),
            22,
        )
        for of in rows
    ]  # fmt: skip
    texts = _NOTHING.join(
        Markup('<text x="{:.2f}%" y="13" text-anchor="middle">{}</text>').format(x(tick), write(tick)) for tick in grid
    )
    axis = Markup('<div class="row axis-row" aria-hidden="true"><svg height="18">{}</svg></div>').format(texts)
    return Markup('<div class="rows" role="group" aria-label="{}">{}{}</div>').format(label, _NOTHING.join(drawn), axis)


def scatter(groups: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], *, label: str) -> Markup:
    """Draw points of groups (name, class, points), x to y as they are; large groups lie below small ones."""
    points = [point for _, _, of in groups for point in of]
    x_low, x_high = (end(x for x, _ in points) for end in (min, max))
    y_low, y_high = (end(y for _, y in points) for end in (min, max))
    width, height = 1000 * max(x_high - x_low, 0.2), 1000 * max(y_high - y_low, 0.2)
    drawn = [
        Markup('<path class="dots {}" d="{}"><title>{}</title></path>').format(
            css, "".join(f"M{1000 * (x - x_low):.0f} {1000 * (y_high - y):.0f}h0" for x, y in of), name
        )
        for name, css, of in sorted(groups, key=lambda group: -len(group[2]))
    ]
    return Markup('<svg class="map" role="img" aria-label="{}" viewBox="{} {} {:.0f} {:.0f}">{}</svg>').format(
        label, -20, -20, width + 40, height + 40, _NOTHING.join(drawn)
    )


def places(dates: Sequence[date]) -> list[float]:
    """Return where dates lie in [0, 1] between the first and the last."""
    span = max(1, (dates[-1] - dates[0]).days) if dates else 1
    return [(of - dates[0]).days / span for of in dates]


@dataclass(frozen=True)
class _Scale:
    """From values to pixels downwards; ticks with what stands at them."""

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
        wanted = _ticks(least, high, 1 + height // 40) if ticks is None else ticks
        return cls(least, high, [(tick, write(tick)) for tick in wanted if least <= tick <= high], height)

    def y(self, value: float) -> float:
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _TOP + self.height * (1 - part)


def _ticks(low: float, high: float, num: int) -> list[float]:
    """Return round numbers from below ``low`` to above ``high``, some ``num`` steps apart."""
    rough = (high - low) / max(1, num)
    size = 10.0 ** floor(log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    return [k * step for k in range(floor(low / step), ceil(high / step) + 1)]


def _framed(scale: _Scale, drawn: Markup, ends: Sequence[str], *, label: str) -> Markup:
    """Put axes around what is drawn: figures at the left in an SVG of their own, labels below."""
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


def _row(of: Row, drawn: Markup, height: int) -> Markup:
    title = Markup("<title>{}</title>").format(of.title) if of.title else _NOTHING
    note = Markup("<small>{}</small>").format(of.note) if of.note else _NOTHING
    return Markup(
        '<div class="row"><span class="name">{}{}</span><svg height="{}" aria-hidden="true">{}{}</svg>'
        '<span class="said">{}</span></div>'
    ).format(of.name, note, height, title, drawn, of.said)

"""Charts as SVG: where marks stand."""

import re
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from userrep.report.charts import (
    Mark,
    Row,
    _ticks,
    columns,
    intervals,
    lines,
    positions,
    scatter,
)
from userrep.report.templates import templates

pytestmark = pytest.mark.fast


def numbers(drawn: str, pattern: str) -> list[float]:
    """Return the numbers that a pattern finds, where ``N`` stands for one."""
    return [float(found) for found in re.findall(pattern.replace("N", r"(-?[\d.]+)"), drawn)]


def points(drawn: str, css: str = "c0") -> list[tuple[float, float]]:
    """Return (x in per cent, y in pixels) of each visible point of a class."""
    xs, ys = (numbers(drawn, f'<circle class="{css}" {before}="N') for before in ("cx", 'cx="[^"]+" cy'))
    return list(zip(xs, ys, strict=True))


def test_a_column_is_as_high_as_its_value() -> None:
    drawn = columns([Mark(50, "a"), Mark(100, "b"), Mark(0, "c")], [], label="x", write=str)
    heights = [float(of) for of in re.findall(r'class="c0" [^>]*height="([\d.]+)"', drawn)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.1)
    assert heights[2] == 0


def test_columns_share_the_width_and_a_marked_one_has_a_dot_at_its_middle() -> None:
    drawn = columns([Mark(k, "", is_marked=k == 2) for k in range(4)], [], label="x", write=str)
    assert numbers(drawn, '<rect class="hit" x="N%"') == [0, 25, 50, 75]
    assert numbers(drawn, '<rect class="c0" x="N%"') == [2.5, 27.5, 52.5, 77.5]
    assert numbers(drawn, '<circle class="warn" cx="N%"') == [62.5]


def test_points_lie_between_the_edges_and_higher_values_are_higher() -> None:
    marks = [Mark(0, "first"), Mark(5, "second"), Mark(10, "third")]
    drawn = lines({"c0": marks}, [], positions=[0, 0.25, 1], label="x", write=str, height=100)
    (x0, y0), (x1, y1), (x2, y2) = points(drawn)
    assert (x0, x1, x2) == (1.5, 25.75, 98.5)
    assert y0 == 110  # pixels from above: the bottom
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y2 > 10
    assert "<title>second</title>" in drawn


def test_a_limit_is_a_line_at_its_value_even_above_all_points() -> None:
    marks = [Mark(2, ""), Mark(4, "")]
    drawn = lines({"c0": marks}, [], positions=[0, 1], label="x", write=str, limits={"bad": 8, "warn": 4, "none": None})
    (bad,), (warn,) = (numbers(drawn, f'<line class="limit {css}" x1="0" x2="100%" y1="N"') for css in ("bad", "warn"))
    assert points(drawn)[1][1] == warn
    assert warn - bad == pytest.approx(180 - warn, abs=0.11)  # as far above 4 as 4 is above zero, at the bottom
    assert bad > 10


def test_points_are_joined_only_where_a_line_is_wanted() -> None:
    curves = {"c2": [Mark(1, ""), Mark(2, "")]}
    assert '<path class="line c2" d="M25.75 ' in lines(curves, ["a", "b"], label="x", write=str)
    assert "<path" not in lines(curves, ["a", "b"], label="x", write=str, is_joined=False)


def test_an_axis_may_begin_above_zero_and_have_ticks_of_its_own() -> None:
    drawn = lines(
        {"c0": [Mark(12, "")]}, ["a"], label="x", write=lambda value: f"{value:.0f}!", least=10,
        ticks=[5, 10, 12, 99],
    )  # fmt: skip
    assert re.findall(r">(\d+!)<", drawn) == ["10!", "12!"]


def test_labels_are_at_both_ends_and_between() -> None:
    drawn = columns([Mark(1, "")], ["a", "b", "c"], label="Events <by> day", write=str)
    assert re.findall(r'<text x="([\d.]+)%" y="\d+" text-anchor="(\w+)">(\w)', drawn) == [
        ("0.0", "start", "a"), ("50.0", "middle", "b"), ("100.0", "end", "c"),
    ]  # fmt: skip
    assert 'aria-label="Events &lt;by&gt; day"' in drawn


def bar(name: str, value: float, top: float, text: str = "", **more: str) -> Markup:
    drawn: Markup = vars(templates().get_template("charts.html").module)["bar"](name, value, top, text, **more)
    return drawn


def test_bars_are_shares_of_the_largest() -> None:
    drawn = bar("a", 2, 8, "two") + bar("b", 8, 8, "eight", css="bad") + bar("c", 0, 8, "none")
    assert numbers(drawn, r'<rect class="(?:c0|bad)" width="N%"') == [25, 100, 0]
    assert re.findall('<span class="text">(.*?)</span>', drawn) == ["two", "eight", "none"]
    assert numbers(bar("a", 0, 0), 'class="c0" width="N%"') == [0]


def test_a_bar_of_full_width_may_have_a_value_that_larger_ones_do_not_exceed() -> None:
    drawn = bar("a", 2, 16) + bar("b", 8, 16) + bar("c", 40, 16)
    assert numbers(drawn, 'class="c0" width="N%"') == [12.5, 50, 100]


def test_intervals_are_drawn_to_one_scale_with_a_line_at_zero() -> None:
    rows = [Row("a", 0.5, "", low=0.0, high=1.0), Row("b", 1.0, "")]
    drawn = intervals(rows, label="x", reference=0, write=str)
    (low, *_), (high, *_) = (numbers(drawn, f'<line class="span c0" {of}="N%"') for of in ("x1", 'x1="[^"]+" x2'))
    (middle, _), (right, _) = points(drawn)
    assert middle == pytest.approx((low + high) / 2, abs=0.02)
    assert right == high < 100
    assert numbers(drawn, '<line class="reference" x1="N%"') == [low] * 2  # behind each row
    assert 'class="reference"' not in intervals(rows, label="x", write=str)


def test_zero_is_on_the_scale_where_it_is_asked_for() -> None:
    rows = [Row("a", 5.0, "", low=4.0, high=6.0)]
    assert numbers(intervals(rows, label="x", reference=0, write=str), '<line class="reference" x1="N%"')[0] < 10
    assert numbers(intervals(rows, label="x", write=str), '<line class="span c0" x1="N%"')[0] < 10


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.62, 0.71), (0.31, 0.49), (0.5, 0.5)])
def test_a_reference_is_on_the_scale_with_a_label_that_no_other_comes_near(low: float, high: float) -> None:
    drawn = intervals([Row("a", high, "", low=low, high=high)], label="x", reference=0.5, write=lambda x: f"{x:.3f}")
    (line,) = numbers(drawn, '<line class="reference" x1="N%"')
    assert 0 < line < 100
    labels = dict(zip(numbers(drawn, r'text-anchor="middle">N</text>'), numbers(drawn, '<text x="N%"'), strict=True))
    assert labels[0.5] == line
    places = sorted(labels.values())
    assert min((after - before for before, after in pairwise(places)), default=99) > 8


def test_small_groups_of_points_lie_above_large_ones_and_y_grows_upwards() -> None:
    drawn = scatter([("few", "c1", [(0.0, 0.5)]), ("many", "c0", [(-1.0, -0.5), (1.0, 0.0)])], label="Users")
    assert re.findall(r'class="dots (\w+)" d="([^"]+)"', drawn) == [
        ("c0", "M0 1000h0M2000 500h0"),
        ("c1", "M1000 0h0"),
    ]
    assert 'viewBox="-20 -20 2040 1040"' in drawn


def test_dates_lie_between_the_first_and_the_last() -> None:
    days = [date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 5)]
    assert positions(days) == [0, 0.25, 1]
    assert positions(days[:1]) == [0]
    assert positions([]) == []


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), num=st.integers(1, 8))
def test_ticks_are_round_numbers_over_the_whole_range(low: float, span: float, num: int) -> None:
    ticks = _ticks(low, low + span, num)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-9 * step
    assert ticks[-1] >= low + span - 1e-6 * step
    assert len(ticks) <= num + 3
    assert min(abs(step / size - 1) for k in range(-6, 8) for size in (10**k, 2 * 10**k, 2.5 * 10**k, 5 * 10**k)) < 1e-3


def test_all_that_enters_a_chart_is_escaped() -> None:
    evil = "<b>&"
    drawn = [
        bar(evil, 1, 1, evil, title=evil),
        columns([Mark(1, evil)], [evil], label=evil, write=lambda _: evil),
        scatter([(evil, "c0", [(0.0, 0.0)])], label=evil),
        intervals([Row(evil, 1, evil, title=evil, note=evil)], label=evil, write=lambda _: ""),
    ]
    assert all(isinstance(of, Markup) for of in drawn)
    assert not any("<b>" in of for of in drawn)
    assert [chart.count("&lt;b&gt;&amp;") for chart in (drawn[0], *drawn[2:])] == [3, 2, 5]

"""The picture of an evaluation, read back from its SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from userrep.evaluation.charts import chart
from userrep.evaluation.results import Cost, Measured, Results

pytestmark = pytest.mark.fast

SVG = "{http://www.w3.org/2000/svg}"
ORANGE, GRAY = "#c2410c", "#475569"


def results_of(**tasks: dict[str, tuple[float, float]]) -> Results:
    """Let each representation have the ends of its interval; ``tasks``: by TASK__METRIC, then by representation."""
    found = [
        Measured(*name.split("__"), one, (sum(ends) / 2,), np.linspace(*ends, 101), "linear", {"test": 3})
        for name, ends_of in tasks.items()
        for one, ends in ends_of.items()
    ]
    return Results({}, found, {one.representation: Cost(1.0, 2.0, 1000, 8) for one in found}, {})


def texts(drawn: bytes) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def intervals(drawn: bytes, color: str) -> list[tuple[float, float, float]]:
    """Return (left, right, height) of the horizontal lines of a color, in the order in which they are drawn."""
    found = []
    for path in ElementTree.fromstring(drawn).iter(f"{SVG}path"):
        line = re.fullmatch(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ([\d.]+)\s*", path.get("d", ""))
        if line and f"stroke: {color}" in path.get("style", "") and line[2] == line[4]:
            found.append((float(line[1]), float(line[3]), float(line[2])))
    return found


def test_each_task_has_a_panel_of_its_first_metric_with_a_line_for_each_representation() -> None:
    figures = {"embedding": (0.6, 0.8), "raw": (0.5, 0.7)}
    drawn = chart(results_of(next_item__auc=figures, next_item__accuracy=figures, volume__r2=figures))
    titles = [text for text in texts(drawn) if ":" in text]
    assert titles == ["next_item: auc", "volume: r2"]
    assert (texts(drawn).count("embedding"), texts(drawn).count("raw")) == (2, 2)
    assert (len(intervals(drawn, ORANGE)), len(intervals(drawn, GRAY))) == (2, 2)


def test_intervals_are_drawn_to_scale_with_the_embedding_on_top() -> None:
    drawn = chart(results_of(next_item__auc={"embedding": (0.6, 0.8), "raw": (0.5, 0.6), "rfm": (0.4, 0.8)}))
    [(left, right, height)] = intervals(drawn, ORANGE)
    (rfm_left, rfm_right, rfm_height), (raw_left, raw_right, raw_height) = intervals(drawn, GRAY)
    assert height < raw_height < rfm_height  # SVG counts from the top
    unit = (right - left) / 0.18  # from the 5 % to the 95 % quantile of bootstraps between 0.6 and 0.8
    assert (raw_right - raw_left, rfm_right - rfm_left) == pytest.approx((0.09 * unit, 0.36 * unit), rel=1e-3)
    assert (left - raw_left, left - rfm_left) == pytest.approx(((0.61 - 0.505) * unit, (0.61 - 0.42) * unit), rel=1e-3)


def test_panels_without_a_task_are_not_drawn_and_the_same_results_give_the_same_bytes() -> None:
    results = results_of(**{f"task{k}__auc": {"embedding": (0.6, 0.8)} for k in range(4)})
    drawn = chart(results)
    assert [text for text in texts(drawn) if ":" in text] == [f"task{k}: auc" for k in range(4)]
    shown = set(re.findall(r'id="axes_\d+"', drawn.decode()))
    assert len(shown) == 4  # of the six panels of a grid of three columns
    assert chart(results) == drawn

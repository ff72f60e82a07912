"""A picture of an evaluation: a panel per task, a line per representation, with its interval."""

import io

import matplotlib
from matplotlib.figure import Figure

from userrep.evaluation.results import Results

_COLUMNS = 3
_OURS, _THEIRS = "#c2410c", "#475569"


def chart(results: Results) -> bytes:
    """Draw each task's first metric as SVG; text stays text, so that it can be searched. No display is needed."""
    first = dict(reversed(dict(reversed(results.lines)).items()))  # of a task's metrics the first
    num_rows = -(-len(first) // _COLUMNS)
    height = 0.24 * len(results.of(*results.lines[0])) + 0.75
    figure = Figure(figsize=(4.6 * _COLUMNS, height * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for panel, (task, metric) in zip(panels, first.items(), strict=False):
        measured = results.of(task, metric)[::-1]
        for line, one in enumerate(measured):
            interval = one.interval()
            color = _OURS if one.representation == "embedding" else _THEIRS
            panel.plot([interval.low, interval.high], [line, line], color=color, linewidth=2)
            panel.plot([interval.value], [line], "o", color=color, markersize=5)
        panel.set_yticks(range(len(measured)), [one.representation for one in measured])
        panel.set_title(f"{task}: {metric}", fontsize=10, loc="left")
        panel.grid(axis="x", linewidth=0.4)
        panel.tick_params(labelsize=8)
    for panel in panels[len(first) :]:
        panel.set_visible(False)
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "userrep"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()

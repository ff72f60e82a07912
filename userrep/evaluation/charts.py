"""Chart of an evaluation: one panel per task, one line per representation with its interval."""

import io

import matplotlib
from matplotlib.figure import Figure

from userrep.evaluation.results import Results

_COLUMNS = 3
_EMBEDDING_COLOR, _OTHER_COLOR = "#c2410c", "#475569"


def chart(results: Results) -> bytes:
    """Draw each task's first metric as SVG with searchable text. Needs no display."""
    first = dict(reversed(dict(reversed(results.lines)).items()))  # the first metric of each task
    num_rows = -(-len(first) // _COLUMNS)
    height = 0.24 * len(results.of(*results.lines[0])) + 0.75
    figure = Figure(figsize=(4.6 * _COLUMNS, height * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for panel, (task, metric) in zip(panels, first.items(), strict=False):
        measured = results.of(task, metric)[::-1]
        for line, result in enumerate(measured):
            interval = result.interval()
            color = _EMBEDDING_COLOR if result.representation == "embedding" else _OTHER_COLOR
            panel.plot([interval.low, interval.high], [line, line], color=color, linewidth=2)
            panel.plot([interval.value], [line], "o", color=color, markersize=5)
        panel.set_yticks(range(len(measured)), [result.representation for result in measured])
        panel.set_title(f"{task}: {metric}", fontsize=10, loc="left")
        panel.grid(axis="x", linewidth=0.4)
        panel.tick_params(labelsize=8)
    for panel in panels[len(first) :]:
        panel.set_visible(False)
    svg = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "userrep"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()

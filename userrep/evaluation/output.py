"""Output of an evaluation: a folder with metrics and a chart, rows of ``space_metrics``, a table for stdout."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from pydantic_core import to_json

from userrep.evaluation.families import EMBEDDING, lead_inputs, leads
from userrep.evaluation.results import Measured, Results, comparisons
from userrep.ids import short_hash
from userrep.model.self_check import AKIN_NOTE, MEAN, OTHERS_MEAN, Interval, marked
from userrep.store.filesystem import absolute, write_folder
from userrep.store.schemas import SPACE_METRICS
from userrep.store.tables import Tables
from userrep.store.vector_storage import STORED
from userrep.utc import utc_now

METRICS, CHART = "metrics.json", "metrics.svg"
_DIGITS = 6  # of numbers in JSON
_PANEL_COLUMNS = 3
_EMBEDDING_COLOR, _OTHER_COLOR = "#c2410c", "#475569"


def write_results(tables: Tables, results: Results, out: str) -> dict[str, Any]:
    """Write ``space_metrics``, then the output folder, all or nothing; return the content of ``metrics.json``.

    The folder must be missing or empty (``check_out``). The evaluation id is a hash of the inputs, so a repeated
    evaluation replaces its earlier rows.
    """
    tree = as_json(results)
    tables.add(SPACE_METRICS, table_rows(results, tree), replacing=f"evaluation_id = '{tree['evaluation_id']}'")
    files = {
        CHART: chart(results),
        METRICS: to_json(tree, indent=1, inf_nan_mode="null"),
    }
    write_folder(absolute(out.rstrip("/")), files)
    return tree


def as_json(results: Results) -> dict[str, Any]:
    """Return all results as a tree: manifest, tasks, leads by peer and family of tasks, costs, and what is left out."""
    manifest, lines = dict(results.manifest), results.lines
    return {
        "evaluation_id": f"e{short_hash(manifest)}",
        "evaluated_at": utc_now(),
        "manifest": manifest,
        "tasks": {
            task: {
                "touched_by_training_heads": task in results.akin,
                "metrics": {metric: _values(measured) for (name, metric), measured in lines.items() if name == task},
            }
            for task in dict.fromkeys(task for task, _ in lines)
        },
        "leads": leads(results.measured, results.akin) if lead_inputs(results.measured) else {},
        "left_out": dict(results.left_out),
        "costs": {
            name: asdict(cost) | {"seconds_per_million": round(cost.seconds_per_million, 2)}
            for name, cost in results.costs.items()
        },
    }


def table_rows(results: Results, tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``space_metrics``. ``tree``: the result of ``as_json``."""
    common = {key: results.manifest[key] for key in ("space_id", "content_hash", "config_hash", "code_hash")}
    common |= {key: tree[key] for key in ("evaluation_id", "evaluated_at")}
    rows = []
    for (task, metric), measured in results.lines.items():
        for result, comparison in zip(measured, [None, *comparisons(measured)], strict=True):
            lead = (*comparison.difference, comparison.share_above) if comparison else (None,) * 4
            rows.append(common | result.interval()._asdict() | {
                "task": task, "metric": metric, "representation": result.representation,
                "value_by_seed": list(result.by_seed), "num_test": result.num_examples["test"],
                **dict(zip(("ahead_by", "ahead_low", "ahead_high", "share_ahead"), lead, strict=True)),
            })  # fmt: skip
    return rows


def result_lines(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a table: one row per task and metric, one column per representation.

    The last column is the embedding's lead over the best other representation, with the interval. Tasks akin to
    training are marked (see ``AKIN_NOTE``).
    """
    names = [result.representation for result in next(iter(results.lines.values()))]
    rows = []
    for (task, metric), measured in results.lines.items():
        others = [each for each in comparisons(measured) if not each.baseline.startswith(STORED)]
        best = min(others, key=lambda comparison: comparison.difference.value, default=None)
        last = f"{_signed(best.difference)} over {best.baseline}" if best else ""
        values = {result.representation: f"{result.value:.4f}" for result in measured}
        rows.append([marked(task, task in results.akin), metric, *(values.get(name, "") for name in names), last])
    return ["task", "metric", *names, "embedding ahead of the best other by"], rows


def lead_lines(tree: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a table of mean leads over families, with and without tasks akin to training.

    ``tree``: the result of ``as_json``.
    """
    names = [name for name in (MEAN, OTHERS_MEAN) if any(name in families for families in tree["leads"].values())]
    rows = [
        [peer, *("{:+.1%} [{:+.1%}, {:+.1%}]".format(*families[name]) if name in families else "" for name in names)]
        for peer, families in tree["leads"].items()
    ]
    return ["embedding ahead of", *names], rows


def loss_lines(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a table of what the embedding loses in other storage types; no rows without any.

    A loss is the difference on the same rows, seeds and resampled users, with its interval, and relative to the value
    of the embedding.
    """
    rows, names = [], []
    for (task, metric), measured in results.lines.items():
        losses = [each for each in comparisons(measured) if each.baseline.startswith(STORED)]
        if losses:
            value, names = measured[0].value, [loss.baseline for loss in losses]
            shares = [f"{loss.difference.value / abs(value):+.3%}" if value else "" for loss in losses]
            cells = zip((_signed(loss.difference, 6) for loss in losses), shares, strict=True)
            rows.append([marked(task, task in results.akin), metric, *(cell for pair in cells for cell in pair)])
    return ["task", "metric", *(cell for name in names for cell in (f"{name} loses", "relative"))], rows


def chart(results: Results) -> bytes:
    """Draw each task's first metric as SVG with searchable text. Needs no display."""
    first: dict[str, list[Measured]] = {}  # by task
    for (task, _), measured in results.lines.items():
        first.setdefault(task, measured)
    num_rows = -(-len(first) // _PANEL_COLUMNS)
    height = 0.24 * max(map(len, first.values())) + 0.75
    figure = Figure(figsize=(4.6 * _PANEL_COLUMNS, height * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, _PANEL_COLUMNS, squeeze=False).ravel()
    for panel, (task, measured) in zip(panels, first.items(), strict=False):
        for line, result in enumerate(reversed(measured)):
            interval = result.interval()
            color = _EMBEDDING_COLOR if result.representation == EMBEDDING else _OTHER_COLOR
            panel.plot([interval.low, interval.high], [line, line], color=color, linewidth=2)
            panel.plot([interval.value], [line], "o", color=color, markersize=5)
        panel.set_yticks(range(len(measured)), [result.representation for result in reversed(measured)])
        panel.set_title(f"{marked(task, task in results.akin)}: {measured[0].metric}", fontsize=10, loc="left")
        panel.grid(axis="x", linewidth=0.4)
        panel.tick_params(labelsize=8)
    for panel in panels[len(first) :]:
        panel.set_visible(False)
    if results.akin:
        figure.supxlabel(AKIN_NOTE, fontsize=8)
    svg = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "userrep"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _values(measured: Sequence[Measured]) -> dict[str, Any]:
    return {
        "num_examples": dict(measured[0].num_examples),
        "representations": {
            result.representation: {
                **_rounded(result.interval()), "by_seed": [round(value, _DIGITS) for value in result.by_seed],
                "setting": result.setting,
            }
            for result in measured
        },
        "embedding_ahead_of": {
            lead.baseline: {
                "difference": _rounded(lead.difference), "share_of_bootstraps_above_0": round(lead.share_above, 4),
                "relative_gain": lead.gain and _rounded(lead.gain),
            }
            for lead in comparisons(measured)
        },
    }  # fmt: skip


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in interval._asdict().items()}


def _signed(interval: Interval, digits: int = 4) -> str:
    value, low, high = (f"{number:+.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"

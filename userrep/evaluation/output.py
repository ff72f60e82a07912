"""What an evaluation leaves behind: a folder with figures and charts, rows of ``space_metrics``, a table on stdout."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from userrep.evaluation.charts import chart
from userrep.evaluation.results import Against, Interval, Results
from userrep.ids import short_hash
from userrep.store.schemas import SPACE_METRICS
from userrep.store.storage import absolute, write_folder
from userrep.store.tables import Tables
from userrep.utc import utc_now

METRICS, CHART = "metrics.json", "metrics.svg"
_DIGITS = 6  # of figures in JSON


def write_results(tables: Tables, results: Results, out: str) -> dict[str, Any]:
    """Write ``space_metrics``, then the folder, whole or not at all; return what ``metrics.json`` holds.

    The folder is not there, or is empty (``check_out``). An evaluation of the same inputs has the same id, and its rows
    take the place of those that are there.
    """
    found = as_json(results)
    tables.add(SPACE_METRICS, table_rows(results, found), replacing=f"evaluation_id = '{found['evaluation_id']}'")
    files = {CHART: chart(results), METRICS: json.dumps(found, indent=1, default=_plain).encode()}
    write_folder(absolute(out.rstrip("/")), files)
    return found


def as_json(results: Results) -> dict[str, Any]:
    """Return all figures as a tree: manifest, tasks, costs, and what is left out."""
    manifest = dict(results.manifest)
    return {
        "evaluation_id": f"e{short_hash(manifest)}",
        "evaluated_at": utc_now(),
        "manifest": manifest,
        "tasks": {
            task: {
                "touched_by_training_heads": results.akin.get(task, False),
                "metrics": {metric: _figures(results, task, metric) for of, metric in results.lines if of == task},
            }
            for task in dict.fromkeys(task for task, _ in results.lines)
        },
        "left_out": dict(results.left_out),
        "costs": {
            name: asdict(cost) | {"seconds_per_million": round(cost.seconds_per_million, 2)}
            for name, cost in results.costs.items()
        },
    }


def table_rows(results: Results, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``space_metrics``."""
    same = {key: results.manifest[key] for key in ("space_id", "content_hash", "config_hash", "code_hash")}
    same |= {key: found[key] for key in ("evaluation_id", "evaluated_at")}
    rows = []
    for task, metric in results.lines:
        by_baseline = {one.baseline: one for one in results.against(task, metric)}
        for one in results.of(task, metric):
            interval, against = one.interval(), by_baseline.get(one.representation)
            rows.append(same | {
                "task": task, "metric": metric, "representation": one.representation,
                "value": interval.value, "low": interval.low, "high": interval.high,
                "value_by_seed": list(one.by_seed), "num_test": one.num_examples["test"],
                "ahead_by": against.difference.value if against else None,
                "ahead_low": against.difference.low if against else None,
                "ahead_high": against.difference.high if against else None,
                "share_ahead": against.share_above if against else None,
            })  # fmt: skip
    return rows


def result_lines(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table: a line per task and metric, a column per representation.

    The last column says how far the embedding is ahead of the best of the others, with the interval.
    """
    names = [one.representation for one in results.of(*results.lines[0])]
    rows = []
    for task, metric in results.lines:
        measured = results.of(task, metric)
        against = results.against(task, metric)
        best = min(against, key=lambda one: one.difference.value) if against else None
        last = f"{_signed(best.difference)} over {best.baseline}" if best else ""
        values = {one.representation: f"{one.value:.4f}" for one in measured}
        rows.append([task, metric, *(values.get(name, "") for name in names), last])
    return ["task", "metric", *names, "embedding, ahead of the best other by"], rows


def _figures(results: Results, task: str, metric: str) -> dict[str, Any]:
    measured = results.of(task, metric)
    return {
        "num_examples": dict(measured[0].num_examples),
        "representations": {
            one.representation: {
                **_rounded(one.interval()), "by_seed": [round(value, _DIGITS) for value in one.by_seed],
                "setting": one.setting,
            }
            for one in measured
        },
        "embedding_ahead_of": {one.baseline: _compared(one) for one in results.against(task, metric)},
    }  # fmt: skip


def _compared(one: Against) -> dict[str, Any]:
    return {
        "difference": _rounded(one.difference),
        "share_of_bootstraps_above_0": round(one.share_above, 4),
        "relative_gain": _rounded(one.gain) if one.gain else None,
    }


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in asdict(interval).items()}


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    return list(value) if isinstance(value, Sequence) else str(value)

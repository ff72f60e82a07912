"""What an evaluation leaves behind: the tree of figures, the stored rows, the table, and the folder."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest

from userrep.evaluation.output import as_json, chart, lead_lines, loss_lines, result_lines, table_rows, write_results
from userrep.evaluation.results import Cost, Measured, Results
from userrep.model.self_check import AKIN_NOTE
from userrep.store.schemas import TableSchema

pytestmark = pytest.mark.fast

MANIFEST = {"space_id": "s1", "content_hash": "c", "config_hash": "f", "code_hash": "d"}


def measured(name: str, bootstraps: Sequence[float], *by_seed: float, metric: str = "auc") -> Measured:
    examples = {"train": 5, "valid": 2, "test": 3}
    return Measured("return_7d", metric, name, by_seed, np.array(bootstraps), "linear", examples)


def results_of(*found: Measured) -> Results:
    return Results(MANIFEST, found, {one.representation: Cost(1.0, 2.0, 1000, 8) for one in found}, {"x": "too few"})


def two_results() -> Results:
    return results_of(
        measured("embedding", [0.7, 0.7], 0.6999999, 0.7000001), measured("rfm", [0.5, 0.6], 0.5555555, 0.5555556)
    )


def test_the_table_names_the_best_of_the_others() -> None:
    results = results_of(
        measured("embedding", [0.7, 0.7], 0.7), measured("rfm", [0.6, 0.6], 0.6), measured("raw", [0.75, 0.75], 0.75)
    )
    head, rows = result_lines(results)
    assert head == ["task", "metric", "embedding", "rfm", "raw", "embedding ahead of the best other by"]
    assert rows == [["return_7d", "auc", "0.7000", "0.6000", "0.7500", "-0.0500 [-0.0500, -0.0500] over raw"]]
    found = as_json(results)
    assert found["left_out"] == {"x": "too few"}
    assert found["costs"]["rfm"]["seconds_per_million"] == 2000
    stored = table_rows(results, found)
    assert [(row["representation"], row["ahead_by"]) for row in stored] == [
        ("embedding", None), ("rfm", pytest.approx(0.1)), ("raw", pytest.approx(-0.05)),
    ]  # fmt: skip


def test_tasks_akin_to_training_are_marked_in_tables_and_in_the_chart() -> None:
    results = replace(two_results(), akin=["return_7d"])
    assert result_lines(results)[1][0][0] == "return_7d *"
    drawn = texts(chart(results))
    assert "return_7d *: auc" in drawn
    assert AKIN_NOTE in drawn
    assert AKIN_NOTE not in texts(chart(two_results()))


def test_mean_leads_have_a_column_for_the_tasks_unlike_training() -> None:
    judged = [
        replace(measured(name, [value] * 3, value), task=task, num_examples={"test": 200})
        for name, value in (("embedding", 0.6), ("raw", 0.5))
        for task in ("return_7d", "attribute_age")
    ]
    lead = "+20.0% [+20.0%, +20.0%]"
    results = replace(results_of(*judged), akin=["return_7d"])
    assert lead_lines(as_json(results)) == (
        ["embedding ahead of", "mean", "mean without *"], [["raw", lead, lead]],
    )  # fmt: skip
    assert as_json(two_results())["leads"] == {}  # no task has enough examples


def test_an_embedding_without_baselines_has_an_empty_last_column() -> None:
    _, rows = result_lines(results_of(measured("embedding", [0.7], 0.7)))
    assert rows == [["return_7d", "auc", "0.7000", ""]]


def test_a_representation_that_is_left_out_of_a_task_has_an_empty_cell_in_its_own_column() -> None:
    results = results_of(
        measured("embedding", [0.7], 0.7), measured("pca", [0.8], 0.8), measured("rfm", [0.6], 0.6),
        measured("embedding", [0.4], 0.4, metric="ndcg"), measured("rfm", [0.3], 0.3, metric="ndcg"),
    )  # fmt: skip
    assert [row[2:5] for row in result_lines(results)[1]] == [["0.7000", "0.8000", "0.6000"], ["0.4000", "", "0.3000"]]


def test_the_tree_holds_rounded_figures_with_their_intervals_and_what_they_are_ahead_of() -> None:
    task = as_json(replace(two_results(), akin=["return_7d"]))["tasks"]["return_7d"]
    assert task["touched_by_training_heads"] is True
    figures = task["metrics"]["auc"]
    assert figures["num_examples"] == {"train": 5, "valid": 2, "test": 3}
    assert figures["representations"]["rfm"] == {
        "value": 0.555556, "low": 0.505, "high": 0.595, "by_seed": [0.555555, 0.555556], "setting": "linear",
    }  # fmt: skip
    assert figures["embedding_ahead_of"] == {
        "rfm": {
            "difference": {"value": 0.144444, "low": 0.105, "high": 0.195},
            "share_of_bootstraps_above_0": 1.0,
            "relative_gain": {
                "value": round(0.7 / 0.55555555 - 1, 6),
                "low": round(1 / 6 + 0.05 * (0.4 - 1 / 6), 6),
                "high": round(0.4 - 0.05 * (0.4 - 1 / 6), 6),
            },
        }
    }


def test_the_id_follows_from_the_manifest_and_not_from_the_figures() -> None:
    one, other = as_json(two_results()), as_json(results_of(measured("embedding", [0.1], 0.1)))
    assert one["evaluation_id"] == other["evaluation_id"]
    changed = replace(two_results(), manifest=MANIFEST | {"code_hash": "e"})
    assert as_json(changed)["evaluation_id"] != one["evaluation_id"]


def test_a_stored_row_holds_the_interval_the_seeds_and_the_comparison_of_its_representation() -> None:
    results = two_results()
    found = as_json(results)
    first, second = table_rows(results, found)
    assert {key: first[key] for key in ("ahead_by", "ahead_low", "ahead_high", "share_ahead")} == dict.fromkeys(
        ("ahead_by", "ahead_low", "ahead_high", "share_ahead")
    )
    assert second == MANIFEST | {
        "evaluation_id": found["evaluation_id"], "evaluated_at": found["evaluated_at"],
        "task": "return_7d", "metric": "auc", "representation": "rfm",
        "value": pytest.approx(0.55555555), "low": pytest.approx(0.505), "high": pytest.approx(0.595),
        "value_by_seed": [0.5555555, 0.5555556], "num_test": 3, "ahead_by": pytest.approx(0.14444445),
        "ahead_low": pytest.approx(0.105), "ahead_high": pytest.approx(0.195), "share_ahead": 1.0,
    }  # fmt: skip


class RecordedTables:
    """Tables that keep what is added."""

    def __init__(self) -> None:
        self.added: list[tuple[str, list[dict[str, Any]], str]] = []

    def add(self, table: TableSchema, rows: list[dict[str, Any]], *, replacing: str) -> None:
        self.added.append((table.name, rows, replacing))


def test_results_are_written_as_rows_that_replace_those_of_the_same_evaluation_and_as_a_folder(tmp_path: Path) -> None:
    results = replace(two_results(), manifest=MANIFEST | {"trained_until": date(2024, 3, 1), "horizons_days": (7, 30)})
    tables = RecordedTables()
    found = write_results(cast(Any, tables), results, f"{tmp_path / 'out'}/")
    [(name, rows, replacing)] = tables.added
    assert (name, len(rows)) == ("space_metrics", 2)
    assert replacing == f"evaluation_id = '{found['evaluation_id']}'"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "metrics.svg"]
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["tasks"] == found["tasks"]
    assert written["manifest"]["trained_until"] == "2024-03-01"
    assert written["manifest"]["horizons_days"] == [7, 30]
    assert (tmp_path / "out" / "metrics.svg").read_bytes().startswith(b"<?xml")


# -- the chart --------------------------------------------------------------------------------------------------------


SVG = "{http://www.w3.org/2000/svg}"
ORANGE, GRAY = "#c2410c", "#475569"


def charted(**tasks: dict[str, tuple[float, float]]) -> Results:
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
    drawn = chart(charted(next_item__auc=figures, next_item__accuracy=figures, volume__r2=figures))
    titles = [text for text in texts(drawn) if ":" in text]
    assert titles == ["next_item: auc", "volume: r2"]
    assert (texts(drawn).count("embedding"), texts(drawn).count("raw")) == (2, 2)
    assert (len(intervals(drawn, ORANGE)), len(intervals(drawn, GRAY))) == (2, 2)


def test_intervals_are_drawn_to_scale_with_the_embedding_on_top() -> None:
    drawn = chart(charted(next_item__auc={"embedding": (0.6, 0.8), "raw": (0.5, 0.6), "rfm": (0.4, 0.8)}))
    [(left, right, height)] = intervals(drawn, ORANGE)
    (rfm_left, rfm_right, rfm_height), (raw_left, raw_right, raw_height) = intervals(drawn, GRAY)
    assert height < raw_height < rfm_height  # SVG counts from the top
    unit = (right - left) / 0.18  # from the 5 % to the 95 % quantile of bootstraps between 0.6 and 0.8
    assert (raw_right - raw_left, rfm_right - rfm_left) == pytest.approx((0.09 * unit, 0.36 * unit), rel=1e-3)
    assert (left - raw_left, left - rfm_left) == pytest.approx(((0.61 - 0.505) * unit, (0.61 - 0.42) * unit), rel=1e-3)


def test_panels_without_a_task_are_not_drawn_and_the_same_results_give_the_same_bytes() -> None:
    results = charted(**{f"task{k}__auc": {"embedding": (0.6, 0.8)} for k in range(4)})
    drawn = chart(results)
    assert [text for text in texts(drawn) if ":" in text] == [f"task{k}: auc" for k in range(4)]
    shown = set(re.findall(r'id="axes_\d+"', drawn.decode()))
    assert len(shown) == 4  # of the six panels of a grid of three columns
    assert chart(results) == drawn


def test_other_storage_types_are_no_rivals_and_their_losses_have_a_table_of_their_own() -> None:
    results = results_of(
        measured("embedding", [0.7, 0.7], 0.7), measured("rfm", [0.6, 0.6], 0.6),
        measured("embedding_float16", [0.7, 0.7], 0.7), measured("embedding_int8", [0.69, 0.6972], 0.6993),
    )  # fmt: skip
    assert result_lines(results)[1][0][-1] == "+0.1000 [+0.1000, +0.1000] over rfm"
    head, rows = loss_lines(results)
    assert head == ["task", "metric", "embedding_float16 loses", "relative", "embedding_int8 loses", "relative"]
    low, high = np.quantile([0.01, 0.0028], [0.05, 0.95])
    ours = [f"+0.000700 [{low:+.6f}, {high:+.6f}]", "+0.100%"]
    assert rows == [["return_7d", "auc", "+0.000000 [+0.000000, +0.000000]", "+0.000%", *ours]]
    assert loss_lines(two_results())[1] == []

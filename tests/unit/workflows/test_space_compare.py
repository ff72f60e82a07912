"""The comparison of two spaces as a whole: its result, its lines, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.planted_spaces import (
    NEW,
    OLD,
    Planted,
    Tastes,
    labels_of,
    noise,
    planted_tables,
    richer,
    rotated,
    written,
)
from userrep.errors import UsageError
from userrep.spaces.registry import find_space
from userrep.spaces.verdicts import LabelTable
from userrep.store.file_tables import FileTables
from userrep.workflows.space_compare import SpaceComparison, compare_spaces, comparison_lines

pytestmark = pytest.mark.fast

TASTES = Tastes.drawn(600)


def compared(folder: Path, tables: FileTables, *, old: str = OLD, new: str = NEW, **given: Any) -> SpaceComparison:
    table = LabelTable(written(labels_of(TASTES), folder), model=given.pop("model", None))
    spaces = {"old": find_space(tables, old), "new": find_space(tables, new)}
    return compare_spaces(tables, config_of(folder), **spaces, label_table=table, **given)


@pytest.mark.parametrize(("new", "verdict"), [(rotated, "pass"), (noise, "fail"), (richer, "pass")])
def test_the_verdict_is_that_of_a_model_that_is_trained_again(tmp_path: Path, new: Planted, verdict: str) -> None:
    comparison = compared(tmp_path, planted_tables(tmp_path / "root", new, TASTES))
    result = comparison.result
    assert (result["verdict"], result["metric"], result["judged"]) == (verdict, "auc", "retrained")
    assert (result["num_labels"], result["num_fitted"], str(result["judged_from"])) == (600, 600, "2024-05-08 12:00:00")
    assert result["difference"] == pytest.approx(result["new_value"] - result["old_value"])
    assert result["interval"][0] <= result["difference"] <= result["interval"][1]
    assert {*result["comparisons"]} == {"retrained", "mapped"}
    assert (result["old"], result["new"], result["slices"]) == (OLD, NEW, {})
    if new is richer:
        assert result["interval"][0] > 0
    lines = list(comparison_lines(comparison))
    assert lines[0] == (
        f"AUC of {NEW} next to {OLD}, 600 labels from 2024-05-08 12:00 UTC on, probes fitted on 600 earlier labels"
    )
    assert lines[-1].startswith(f"verdict: {verdict} for a model that is trained again on {NEW}: ")
    assert lines[3].split()[:2] == ["all", "600"]


def test_the_verdict_of_a_given_model_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"space_id": OLD, "weights": [1, -1, 0.5, 0]}))
    comparison = compared(
        tmp_path, planted_tables(tmp_path / "root", richer, TASTES), model=str(tmp_path / "model.json")
    )
    assert (comparison.judged, comparison.overall.verdict) == ("model", "pass")
    assert abs(comparison.overall.difference) < 1e-6
    assert comparison.comparisons["retrained"]["all"].difference > 0.05
    verdict = comparison.verdict_for("ads", LabelTable("/l"))
    assert (verdict.low, verdict.high) == comparison.overall.interval


def test_spaces_that_cannot_be_compared_are_refused_before_labels_are_read(tmp_path: Path) -> None:
    tables = planted_tables(tmp_path / "root", rotated, TASTES)
    with pytest.raises(UsageError, match=r"space s001-a cannot be compared with itself\. Name two spaces"):
        compared(tmp_path, tables, new=OLD)
    with pytest.raises(UsageError, match=r"--metric f1: unknown\. Choose one of: auto, auc, r2"):
        compared(tmp_path, tables, metric="f1")
    with pytest.raises(UsageError, match=r"no map to the coordinates of space s002-b\. Fit one with `userrep spaces d"):
        compared(tmp_path, tables, old=NEW, new=OLD)
    with pytest.raises(UsageError, match=r"--model .*nowhere: not readable as a linear model"):
        compared(tmp_path, tables, model=str(tmp_path / "nowhere"))

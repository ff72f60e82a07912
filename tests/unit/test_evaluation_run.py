"""An evaluation without Spark: what is compared with what, what is left out, what is refused."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.support.builders import config_of
from tests.support.evaluation_world import PLAN, Event, rows_at_all_dates, truth_of, world
from userrep.errors import UsageError
from userrep.evaluation.measure import Described, beside_each_other, check_measured, measure
from userrep.evaluation.output import as_json, result_lines, table_rows
from userrep.evaluation.representation import Context
from userrep.evaluation.results import Against, Cost, Interval, Measured, Results
from userrep.evaluation.rows import rows_of
from userrep.evaluation.run import check_futures, without_picks
from userrep.evaluation.tasks.neighbours import NeighboursByFavourite
from userrep.evaluation.tasks.rows import Return, Volume
from userrep.jobs import evaluation_main

pytestmark = pytest.mark.default

MANIFEST = {"space_id": "s1", "content_hash": "c", "config_hash": "f", "code_hash": "d"}


def measured(name: str, bootstraps: Sequence[float], *by_seed: float) -> Measured:
    examples = {"train": 5, "valid": 2, "test": 3}
    return Measured("return_7d", "auc", name, by_seed, np.array(bootstraps), "linear", examples)


def results_of(*found: Measured) -> Results:
    return Results(MANIFEST, found, {one.representation: Cost(1.0, 2.0, 1000, 8) for one in found}, {"x": "too few"})


def test_differences_are_paired_by_resampling() -> None:
    ours, theirs = measured("embedding", [0.6, 0.7, 0.8], 0.7, 0.72), measured("rfm", [0.5, 0.61, 0.85], 0.6, 0.62)
    found = Against.of(ours, theirs)
    assert found.difference.value == pytest.approx(0.1)
    assert found.share_above == pytest.approx(2 / 3)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        tuple(np.quantile([0.1, 0.09, -0.05], [0.05, 0.95]))
    )
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.71 / 0.61 - 1)
    assert Against.of(ours, measured("rfm", [-0.1, 0.2, 0.3], 0.1)).gain is None


def test_bootstraps_without_a_value_do_not_count() -> None:
    assert Interval.of(0.5, np.array([np.nan, 0.4, 0.4])) == Interval(0.5, 0.4, 0.4)
    assert np.isnan(Interval.of(0.5, np.array([np.nan])).low)


def test_the_table_names_the_best_of_the_others() -> None:
    results = results_of(
        measured("embedding", [0.7, 0.7], 0.7), measured("rfm", [0.6, 0.6], 0.6), measured("raw", [0.75, 0.75], 0.75)
    )
    head, rows = result_lines(results)
    assert head == ["task", "metric", "embedding", "rfm", "raw", "embedding, ahead of the best other by"]
    assert rows == [["return_7d", "auc", "0.7000", "0.6000", "0.7500", "-0.0500 [-0.0500, -0.0500] over raw"]]
    found = as_json(results)
    assert found["left_out"] == {"x": "too few"}
    assert found["costs"]["rfm"]["seconds_per_million"] == 2000
    stored = table_rows(results, found)
    assert [(row["representation"], row["ahead_by"]) for row in stored] == [
        ("embedding", None), ("rfm", pytest.approx(0.1)), ("raw", pytest.approx(-0.05)),
    ]  # fmt: skip


def test_the_embedding_alone_is_told_without_a_comparison() -> None:
    _, rows = result_lines(results_of(measured("embedding", [0.7], 0.7)))
    assert rows == [["return_7d", "auc", "0.7000", ""]]


def test_tasks_are_measured_for_each_representation_and_seed_and_those_without_examples_left_out(
    tmp_path: Path,
) -> None:
    planted = world(num_users=150)
    config = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 20})
    described = [
        Described(name, x_NF, Cost(0, 0, *x_NF.shape))
        for name, x_NF in (
            ("embedding", planted.taste_of_rows()),
            ("popularity", np.zeros((len(planted.rows), 1), np.float32)),
        )
    ]
    truth = replace(planted.truth, cluster_I=np.full(80, -1))
    said: list[str] = []
    found, left_out = measure([Return(7), NeighboursByFavourite(30)], truth, described, config, said.append)
    assert [(one.task, one.representation, len(one.by_seed)) for one in found] == [
        ("return_7d", "embedding", 2), ("return_7d", "popularity", 2),
    ]  # fmt: skip
    assert left_out == {"neighbours": "no item has a vector to be clustered by"}
    assert "neighbours: left out; no item has a vector to be clustered by" in said
    with beside_each_other(10**6) as each:
        again, _ = measure([Return(7)], truth, described, config, said.append, each=each)
    assert [one.by_seed for one in again] == [one.by_seed for one in found]


def test_a_script_that_lacks_the_guard_of_its_main_module_is_not_run_again_by_other_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun')\n"
        "from userrep.evaluation.measure import beside_each_other\n"
        "with beside_each_other(10**6) as each:\n"
        "    print(list(each(abs, [-1, -2])))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["begun", "[1, 2]"]


def test_an_evaluation_without_any_task_is_refused_with_all_reasons(tmp_path: Path) -> None:
    rows = rows_at_all_dates(50)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    with pytest.raises(UsageError, match=r"(?s)evaluate: return_7d: .*\nevaluate: volume_30d: .* rows with it"):
        check_measured(*measure([Return(7), Volume(30)], truth, [], config_of(tmp_path), lambda _: None))


def test_users_without_a_future_are_refused() -> None:
    truth = truth_of([Event(0, 0, date(2024, 2, 1))], rows_at_all_dates(50), np.eye(3, dtype=np.float32))
    with pytest.raises(UsageError, match="none of the 50 sampled users has an event in the 30 days after 2024-03-01"):
        check_futures(truth.futures, PLAN)


def test_the_representation_by_picks_is_left_out_where_there_are_none(tmp_path: Path) -> None:
    rows, events = rows_at_all_dates(50), [Event(0, 0, date(2024, 2, 1))]
    picks = {"path": "p", "columns": {"user_id": "u", "item_id": "i", "event_at": "t"}}
    without, config = config_of(tmp_path), config_of(tmp_path, onboarding=picks)
    nothing = cast(Any, None)
    for of, picked, reasons in (
        (without, [], {"picks": "the configuration has no onboarding"}),
        (config, [], {"picks": "none of the 50 sampled users has picked an item at onboarding"}),
        (config, [(3, 1)], {}),
    ):
        truth = truth_of(events, rows, np.eye(3, dtype=np.float32), picks=picked)
        assert without_picks(Context(nothing, of, nothing, PLAN, truth.futures, seed=1)) == reasons


def test_a_date_at_which_nobody_is_known_is_refused() -> None:
    features = pa.table({"user_id": ["u1"], "as_of": pa.array([PLAN.dates[0]], pa.date32())})
    with pytest.raises(UsageError, match="no sampled user is known at 2024-03-08, 2024-04-10, 2024-04-17; raise eval"):
        rows_of(features, PLAN, seed=1)


def test_the_job_refuses_a_folder_in_use_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("kept")
    config = tmp_path / "userrep.yaml"
    values = config_of(tmp_path).model_dump(mode="json", exclude_unset=True, by_alias=True)
    config.write_text(yaml.safe_dump(values))
    monkeypatch.setattr("userrep.jobs.get_session", lambda *_, **__: pytest.fail("a session was asked for"))
    monkeypatch.setattr(sys, "argv", ["evaluate_space.py", "--config", str(config), "--out", str(tmp_path / "out")])
    assert evaluation_main("…") == 2
    said = f"evaluate_space: --out {tmp_path / 'out'}: the folder is not empty (notes.txt); name another one."
    assert capsys.readouterr().err.strip() == said

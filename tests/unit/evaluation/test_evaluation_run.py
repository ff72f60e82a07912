"""An evaluation without Spark: what is left out, and what is refused before anything is read."""

import sys
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml

from tests.support.builders import config_of
from tests.support.evaluation_world import PLAN, Event, rows_at_all_dates, truth_of
from userrep.cli.main import main
from userrep.errors import UsageError
from userrep.evaluation.representation import Context
from userrep.evaluation.run import check_futures, reasons_without_picks

pytestmark = pytest.mark.fast


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
        (config, [], {"picks": "none of the 50 sampled users picked an item at onboarding"}),
        (config, [(3, 1)], {}),
    ):
        truth = truth_of(events, rows, np.eye(3, dtype=np.float32), picks=picked)
        assert reasons_without_picks(Context(nothing, of, nothing, PLAN, nothing, truth.futures, seed=1)) == reasons


def test_the_job_refuses_a_folder_in_use_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("kept")
    config = tmp_path / "userrep.yaml"
    values = config_of(tmp_path).model_dump(mode="json", exclude_unset=True, by_alias=True)
    config.write_text(yaml.safe_dump(values))
    monkeypatch.setattr("userrep.spark.session.get_session", lambda *_, **__: pytest.fail("a session was asked for"))
    monkeypatch.setattr(sys, "argv", ["evaluate_space.py", "--config", str(config), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        main("evaluate")
    said = f"userrep: --out {tmp_path / 'out'}: the folder is not empty (notes.txt); name another one."
    assert capsys.readouterr().err.strip() == said

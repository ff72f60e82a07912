"""``userrep nightly``: one line per part, and one exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Userrep, config_file
from tests.unit.workflows.test_nightly import NOW, request, results, tables  # noqa: F401  # fixtures
from userrep.errors import GateRefusedError, LogIncompleteError, UsageError
from userrep.store.schemas import ERASURES
from userrep.store.tables import Tables
from userrep.utc import utc_now

pytestmark = pytest.mark.fast


def test_every_part_runs_even_if_an_earlier_one_fails_and_the_exit_code_is_the_lowest(
    userrep: Userrep,
    no_spark: None,
    tables: Tables,  # noqa: F811  # the fixture
    results: dict[str, Any],  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    tables.add(ERASURES, [request("deleted")])
    results["daily"] = GateRefusedError("not published: too few rows.")
    answer = userrep("nightly", "--config", config_file(tmp_path))
    assert (answer.code, answer.faults) == (3, ["not published: too few rows."])
    assert [line.split()[:2] for line in answer.out.splitlines()] == [
        ["daily", "refused"], ["forget", "done"], ["maintenance", "skipped"],
    ]  # fmt: skip
    results |= {"daily": LogIncompleteError("not complete yet."), "forget": RuntimeError("odd")}
    answer = userrep("nightly", "--config", config_file(tmp_path), "--as-of", "2024-05-02", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["exit_code"], found["as_of"]) == (1, 1, "2024-05-02")
    assert [(part["part"], part["outcome"], part["exit_code"]) for part in found["parts"]] == [
        ("daily", "waiting", 4), ("forget", "failed", 1), ("maintenance", "skipped", 0),
    ]  # fmt: skip
    results |= {"daily": UsageError(["a is wrong.", "b is wrong."]), "forget": {"is_idle": True}}
    answer = userrep("nightly", "--config", config_file(tmp_path), "--json")
    assert json.loads(answer.out)["parts"][0]["reason"] == "a is wrong. b is wrong."
    assert json.loads(answer.out)["as_of"] in (str(NOW.date()), str(utc_now().date()))

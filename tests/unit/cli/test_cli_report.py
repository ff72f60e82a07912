"""``userrep report``: the page, its figures and what it prints. Before a space exists it needs no Spark."""

import json
from datetime import datetime
from pathlib import Path

import pytest

import userrep.report.gather  # noqa: F401  # the command imports it when it runs; then torch, when imported, starts a process
from tests.support.command_line import Userrep, config_file
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables in which one stage has failed."""
    tables = FileTables(None, str(tmp_path / "root"))
    run = {"run_id": "r1", "stage": "build_activity_tiles", "outcome": "failed", "reason": "no such folder"}
    run |= {"started_at": datetime(2024, 5, 1), "seconds": 1.0, "num_rows": 0, "inputs": "{}", "outputs": "{}"}
    tables.add(JOB_RUNS, [run | {"config_hash": "c", "code_hash": "d"}])
    return tables


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("report.pdf", "the name does not end in .html. The figures go next to the page as JSON."),
        ("nowhere/report.html", "folder {folder}/nowhere does not exist. Create it, or choose another folder."),
        ("mine.html", "{folder}/mine.html exists and is not a report. Choose another name."),
        ("other.html", "{folder}/other.json exists and is not a report. Choose another name."),
    ],
)
def test_a_place_for_the_page_is_checked_before_anything_is_read(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path, out: str, said: str
) -> None:
    for name in ("mine.html", "other.json"):
        (tmp_path / name).write_text("kept")
    answer = userrep("report", "--config", config, "--out", tmp_path / out)
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == [f"--out {tmp_path / out}: {said.format(folder=tmp_path)}"]
    assert not (tmp_path / "root").exists()
    assert (tmp_path / "mine.html").read_text() == "kept"


def test_a_report_is_written_with_its_figures_and_its_findings_are_printed(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    printed = userrep("report", "--config", config, "--out", out)
    assert (printed.code, printed.err) == (0, "")
    headline, failed, no_space, no_age, last = printed.out.splitlines()
    assert headline == "Action required: 2 problems, 1 check not run"
    assert no_age.startswith("note: The age of the serving snapshot and of the log is not checked. Set `freshness.")
    assert failed.startswith("bad: The last run of build_activity_tiles failed: no such folder")
    assert no_space.startswith("bad: No space is serving")
    assert f"`userrep pipeline --config {config} --as-of D`" in no_space
    assert last == f"report: {out}, figures: {tmp_path / 'report.json'}"
    assert "Action required: 2 problems" in out.read_text()
    as_json = userrep("report", "--config", config, "--out", out, "--json")
    figures = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(as_json.out) == figures
    assert figures["summary"]["headline"] == headline
    assert figures["config"] == str(config)

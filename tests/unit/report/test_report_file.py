"""Where a report is written, and what it never writes over."""

import json
from pathlib import Path

import pytest

from tests.support.report_facts import facts, nothing
from userrep.errors import UsageError
from userrep.report.file import MARK, check_report_path, page, twin_of, write_report
from userrep.report.summary import summarised

pytestmark = pytest.mark.fast


def test_the_json_has_the_figures_of_the_page_and_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    for known in (nothing(), facts()):
        check_report_path(out)
        figures = write_report(out, known, summarised(known))
    assert json.loads(twin_of(out).read_text()) == figures
    assert figures["summary"]["headline"] == "No problems found"
    assert figures["log"]["days"][0] == {
        "day": "2024-01-01", "num_events": 1000, "num_rejected": 2, "is_missing": False, "usual": None,
    }  # fmt: skip
    assert (figures["made_at"], figures["max_age"]) == ("2024-05-31T08:00:00", {"warn": 93_600.0, "bad": 180_000.0})
    assert figures["evaluation"]["tasks"][0]["figures"][2]["low"] is None  # not a number, which JSON does not have
    assert out.read_text() == page(facts(), summarised(facts()))
    assert MARK in out.read_text()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["report.html", "report.json"]


def test_a_place_where_something_else_lies_is_refused(tmp_path: Path) -> None:
    page_file, figures = tmp_path / "a.html", tmp_path / "a.json"
    with pytest.raises(UsageError, match=r"a\.txt: the name does not end in \.html\."):
        check_report_path(tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"folder .*none does not exist\. Create it, or choose another folder"):
        check_report_path(tmp_path / "none" / "a.html")
    page_file.write_text("<html>my notes</html>")
    with pytest.raises(UsageError, match=r"a\.html exists and is not a report\. Choose another name"):
        check_report_path(page_file)
    page_file.unlink()
    figures.write_text('{"my": "figures"}')
    with pytest.raises(UsageError, match=r"a\.json exists and is not a report\. Choose another name"):
        check_report_path(page_file)
    figures.unlink()
    page_file.mkdir()
    with pytest.raises(UsageError, match=r"a\.html exists and is not a report"):
        check_report_path(page_file)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UsageError, match="no permission to write to"):
        check_report_path(tmp_path / "a.html")


def test_an_earlier_report_is_recognized_by_its_first_bytes_only(tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    out.write_text("x" * 5000 + MARK)
    with pytest.raises(UsageError, match=r"a\.html exists and is not a report"):
        check_report_path(out)
    out.write_text(MARK)
    check_report_path(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html"]  # checking writes nothing

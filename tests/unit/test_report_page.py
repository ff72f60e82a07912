"""The page as text: everything escaped, nothing to be fetched or run; parts that are empty say what would fill them."""

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.report_facts import FIRST, HOSTILE, NOW, a_day, a_task, facts, hostile, nothing
from userrep.errors import UsageError
from userrep.events.tiles import TileDay, TileLedger
from userrep.operations.report import formats
from userrep.operations.report.charts import Mark, columns
from userrep.operations.report.drawings import events_by_day
from userrep.operations.report.facts import EvaluationFacts, as_tree
from userrep.operations.report.file import check_out, twin_of, write_report
from userrep.operations.report.log_days import gaps, log_facts
from userrep.operations.report.page import MARK, coded, page
from userrep.operations.report.summary import summarised

pytestmark = pytest.mark.fast


class Outline(HTMLParser):
    """Which elements a page has, with their attributes, and which of them were not closed in order."""

    VOID = frozenset({"meta", "link", "br", "circle", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline(text)
    assert found.open == []
    return found


@pytest.mark.parametrize("known", [facts(), nothing(), hostile(facts())], ids=["well", "nothing", "hostile"])
def test_nothing_on_the_page_runs_or_is_fetched_and_every_element_is_closed(known: object) -> None:
    text = page(known, summarised(known))  # type: ignore[arg-type]
    elements = outline(text).elements
    assert not {"script", "img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in elements}
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style")]
        links = [attributes.get(name) or "#" for name in ("href", "xlink:href")]
        assert all(link.startswith("#") or (tag, link) == ("link", "data:,") for link in links)
    assert not re.search(r"url\(|@import|https?:", text)


def test_texts_from_data_and_configuration_stand_on_the_page_as_they_are() -> None:
    known = hostile(facts())
    text = page(known, summarised(known))
    assert HOSTILE not in text
    assert text.count("<script") == 0
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text  # a template's signs are signs like others
    assert "<title>userrep report: " in text
    assert coded("a `b <i>` c`d") == "a <code>b &lt;i&gt;</code> c`d"


def test_parts_that_are_empty_say_which_command_fills_them() -> None:
    text = page(nothing(), summarised(nothing()))
    for command in ("pipeline", "run monitor_drift", "evaluate", "daily", "consumers register NAME"):
        assert f"<code>userrep {command} --config conf/mine.yaml" in text


def test_each_part_of_a_root_that_is_well_has_its_chart() -> None:
    text = page(facts(), summarised(facts()))
    labels = {of["aria-label"] for _, of in outline(text).elements if of.get("aria-label")}
    assert labels >= {
        "Events by day", "Rejected rows by reason", "psi by date", "Ahead of the best other, by task",
        "Users by country",
        "Losses by epoch", "How long runs took", "Seconds by stage", "Core hours by stage", "Bytes by table",
        "Users of each snapshot", "Return propensity, AUC by input",
    }  # fmt: skip


def test_tasks_that_training_heads_touch_are_marked_and_so_is_not_knowing() -> None:
    def shown(touched: bool | None) -> str:
        known = facts(evaluation=EvaluationFacts("e", NOW, [a_task("t", (0.1, 0, 0.2), touched=touched)]))
        return page(known, summarised(known))

    assert "t *" in shown(True)
    assert "weigh the others more" in shown(True)
    assert "t *" not in shown(False)
    assert "is not recorded" in shown(None)


def test_an_artifact_without_a_curve_says_where_it_is() -> None:
    known = facts(training=replace(facts().training, curve=[]))  # type: ignore[type-var]
    assert "before its artifact kept the losses" in page(known, summarised(known))


def test_the_figures_beside_the_page_are_the_same_and_an_earlier_report_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    for known in (nothing(), facts()):
        check_out(out)
        figures = write_report(out, known, summarised(known))
    assert json.loads(twin_of(out).read_text()) == figures
    assert figures["summary"]["headline"] == "All is well"
    assert figures["log"]["days"][0] == {
        "day": "2024-01-01", "num_events": 1000, "num_rejected": 2, "is_missing": False, "usual": None,
    }  # fmt: skip
    assert figures["evaluation"]["tasks"][0]["figures"][2]["low"] is None  # not a number, which JSON does not have
    assert out.read_text() == page(facts(), summarised(facts()))
    assert MARK in out.read_text()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["report.html", "report.json"]


def test_a_place_where_something_else_lies_is_refused(tmp_path: Path) -> None:
    page_file, figures = tmp_path / "a.html", tmp_path / "a.json"
    with pytest.raises(UsageError, match=r"a\.txt: name a file that ends in \.html"):
        check_out(tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"there is no folder .*none; make it, or name a file in another one"):
        check_out(tmp_path / "none" / "a.html")
    page_file.write_text("<html>my notes</html>")
    with pytest.raises(UsageError, match=r"a\.html is there and is no report; name another file"):
        check_out(page_file)
    page_file.unlink()
    figures.write_text('{"my": "figures"}')
    with pytest.raises(UsageError, match=r"a\.json is there and is no report; name another file"):
        check_out(page_file)
    figures.unlink()
    page_file.mkdir()
    with pytest.raises(UsageError, match=r"a\.html is there and is no report"):
        check_out(page_file)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UsageError, match="this user may not write to"):
        check_out(tmp_path / "a.html")


def ledger(events: dict[date, int]) -> TileLedger:
    days = {day: TileDay("f", "c", 1, num, 1) for day, num in events.items()}
    return TileLedger(days, TileDay("", "", 0, 0, 0), {})


def test_a_day_is_small_beside_its_own_weekday_and_a_shop_that_is_closed_on_saturdays_has_no_small_ones() -> None:
    days = [FIRST + timedelta(days=k) for k in range(70)]
    open_days = {day: 100 for day in days if day.weekday() != 5}
    found = log_facts(ledger(open_days | {days[-1]: 19, days[-3]: 20}), {}, 0.05)
    assert [of.day for of in found.days if of.is_missing] == [day for day in days if day.weekday() == 5]
    assert [of.day for of in found.days if of.is_small] == [days[-1]]
    assert found.days[-1].usual == 100
    del open_days[days[60]]
    small = [of.day for of in log_facts(ledger(open_days), {}, 0.05).days if of.is_small]
    assert small == [days[60]]
    assert log_facts(ledger({}), {}, 0.05).days == []


def test_missing_days_in_a_row_are_one_gap() -> None:
    days = [a_day(k, is_missing=k in (2, 3, 5)) for k in range(7)]
    assert gaps(days) == [(days[2].day, days[3].day), (days[5].day, days[5].day)]


def test_long_logs_are_drawn_by_week_and_by_four_with_no_event_lost() -> None:
    for num_days, unit, num_columns in ((150, "day", 150), (739, "week", 106), (3000, "4 weeks", 108)):
        drawn, said = events_by_day([a_day(k, num_events=10) for k in range(num_days)])
        totals = [int(num.replace(",", "")) for num in re.findall(r": ([\d,]+) events", drawn)]
        assert (said, len(totals), sum(totals)) == (unit, num_columns, 10 * num_days)


def test_a_column_is_as_high_as_its_value() -> None:
    drawn = columns([Mark(50, "a"), Mark(100, "b"), Mark(0, "c")], [], label="x", write=str)
    heights = [float(of) for of in re.findall(r'class="c0" [^>]*height="([\d.]+)"', drawn)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.1)
    assert heights[2] == 0


@pytest.mark.parametrize(
    ("write", "number", "said"),
    [
        (formats.short, 2947, "2,947"), (formats.short, 220_986, "221 k"), (formats.short, 3_456_789, "3.46 M"),
        (formats.share, 0.0, "0 %"), (formats.share, 0.0052, "0.52 %"), (formats.share, 0.256, "26 %"),
        (formats.share, 1e-6, "< 0.01 %"), (formats.seconds, 4.21, "4.2 s"), (formats.seconds, 59.4, "59 s"),
        (formats.seconds, 725, "12 min 5 s"), (formats.seconds, 12_000, "3 h 20 min"), (formats.size, 900, "900 B"),
        (formats.size, 12_345_678, "12.3 MB"), (formats.size, 999_900, "1.0 MB"),
        (formats.core_hours, None, formats.NONE),
        (formats.core_hours, 0.00123, "0.00123"),
        (formats.signed, -0.5, f"{formats.MINUS}0.500"), (formats.signed, 0.5, "+0.500"),
        (formats.figure, float("nan"), formats.NONE), (formats.when, None, formats.NONE),
    ],
)  # fmt: skip
def test_numbers_are_written_for_a_reader(write: object, number: object, said: str) -> None:
    assert write(number) == said  # type: ignore[operator]


def test_small_amounts_of_work_are_told_in_core_seconds_and_a_list_in_one_unit() -> None:
    assert [formats.core_time(hours, 0.05) for hours in (0.05, 0.001)] == ["180.0 core s", "3.6 core s"]
    assert [formats.core_time(hours, 12.345) for hours in (12.345, 0.01)] == ["12.35 core h", "0.01 core h"]


def test_a_tree_has_what_json_has() -> None:
    assert as_tree({"a": (1, 2.5, float("inf")), date(2024, 1, 1): None}) == {"a": [1, 2.5, None], "2024-01-01": None}

"""The page as text: everything escaped, nothing to be fetched or run; parts that are empty say what would fill them."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.support.report_facts import HOSTILE, NOW, a_task, facts, hostile, nothing
from userrep.report import formats
from userrep.report.file import page
from userrep.report.space_facts import EvaluationFacts
from userrep.report.summary import summarised

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


def test_texts_from_data_and_configuration_are_escaped_on_the_page() -> None:
    known = hostile(facts())
    text = page(known, summarised(known))
    assert HOSTILE not in text
    assert text.count("<script") == 0
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text  # a template's signs are signs like others
    assert "<title>userrep report: " in text


def test_the_title_names_the_root() -> None:
    text = page(facts(root="s3://prod/userrep"), summarised(facts()))
    assert re.search("<title>userrep report: .* · s3://prod/userrep</title>", text)
    assert "userrep report · s3://prod/userrep · conf/mine.yaml · " in text


def test_the_length_of_bars_of_rejected_rows_is_explained_where_there_is_a_limit() -> None:
    assert "A full bar is 5%, the largest share that a day may have" in page(facts(), summarised(facts()))
    unlimited = facts(log=replace(facts().log, max_rejected_share=0.0))
    assert "A full bar" not in page(unlimited, summarised(unlimited))


def test_empty_parts_name_the_command_that_fills_them() -> None:
    text = page(nothing(), summarised(nothing()))
    for command in ("pipeline", "run monitor_drift", "evaluate", "daily", "consumers register NAME"):
        assert f"<code>userrep {command} --config conf/mine.yaml" in text


def test_each_part_of_a_root_that_is_well_has_its_chart() -> None:
    text = page(facts(), summarised(facts()))
    labels = {of["aria-label"] for _, of in outline(text).elements if of.get("aria-label")}
    assert labels >= {
        "Events by day", "Rejected rows by reason", "psi by date", "Lead over the best other representation, by task",
        "Users by events in 30 days", "R2 by block of inputs", "Shares of the score's variance",
        "Losses by epoch", "Run times", "Seconds by stage", "Core hours by stage", "Bytes by table",
        "Users of each snapshot", "Return propensity, AUC by input",
    }  # fmt: skip


def test_tasks_that_training_heads_touch_are_marked_and_so_is_not_knowing() -> None:
    def shown(touched: bool | None) -> str:
        known = facts(evaluation=EvaluationFacts("e", NOW, [a_task("t", (0.1, 0, 0.2), touched=touched)]))
        return page(known, summarised(known))

    assert "t *" in shown(True)
    assert "Give more weight to the other tasks" in shown(True)
    assert "t *" not in shown(False)
    assert "is not recorded" in shown(None)


def test_an_artifact_without_a_curve_is_explained() -> None:
    known = facts(training=replace(facts().training, curve=[]))  # type: ignore[type-var]
    assert "before artifacts stored the losses" in page(known, summarised(known))


@pytest.mark.parametrize(
    ("write", "number", "said"),
    [
        (formats.short, 2947, "2,947"), (formats.short, 220_986, "221 k"), (formats.short, 3_456_789, "3.46 M"),
        (formats.share, 0.0, "0%"), (formats.share, 0.0052, "0.52%"), (formats.share, 0.256, "26%"),
        (formats.share, 1e-6, "< 0.01%"), (formats.seconds, 4.21, "4.2 s"), (formats.seconds, 59.4, "59 s"),
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


def test_small_amounts_of_work_are_in_core_seconds_and_a_list_in_one_unit() -> None:
    assert [formats.core_time(hours, 0.05) for hours in (0.05, 0.001)] == ["180.0 core s", "3.6 core s"]
    assert [formats.core_time(hours, 12.345) for hours in (12.345, 0.01)] == ["12.35 core h", "0.01 core h"]

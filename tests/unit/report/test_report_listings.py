"""The tables of a report: rows, their order, and what is left out."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from html import unescape

import pytest

from tests.support.report_facts import (
    FIRST,
    LAST,
    NOW,
    SPACE,
    a_day,
    a_snapshot,
    a_space,
    a_task,
    drift,
    facts,
    nothing,
    stage,
)
from tests.unit.model.test_self_check import check_of
from userrep.report.facts import Facts, Run
from userrep.report.file import page
from userrep.report.log_facts import LogFacts
from userrep.report.space_facts import EvaluationFacts, TrainingFacts
from userrep.report.summary import summarised

pytestmark = pytest.mark.fast

NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Listing:
    """A table of the page. ``align``: of each column, l (left), r (right) or w (left, may wrap)."""

    title: str
    note: str
    head: list[str]
    align: str
    rows: list[list[str]]


def listings(known: Facts) -> list[Listing]:
    """Return all tables of the page. Cells of a column are aligned alike."""
    found = []
    text = page(known, summarised(known))
    titles = r'(?:<summary>([^<]*) <small class="soft">([^<]*)</small></summary>\s*)?'
    for title, note, body in re.findall(titles + '<div class="scroll"><table>(.*?)</table>', text, re.DOTALL):
        lines = [
            re.findall(r'<t[hd](?: class="(\w+)")?>(.*?)</t[hd]>', row)
            for row in re.findall("<tr>(.*?)</tr>", body, re.DOTALL)
        ]
        head, *rows = [[unescape(cell) for _, cell in line] for line in lines]
        (align,) = {"".join(css[:1] or "l" for css, _ in line) for line in lines[1:]}
        assert "".join(css[:1] or "l" for css, _ in lines[0]) == align.replace("w", "l")
        found.append(Listing(unescape(title), unescape(note), head, align, rows))
    return found


def listing(title: str, known: Facts) -> Listing:
    (found,) = [table for table in listings(known) if table.title == title]
    return found


def headed(first: str, known: Facts) -> Listing:
    """Return the table whose first column has this name."""
    (found,) = [table for table in listings(known) if table.head[0] == first and not table.title]
    return found


def test_every_table_has_as_many_columns_as_its_head_and_alignment() -> None:
    made = listings(facts())
    assert len(made) == 12
    for of in made:
        assert {len(of.head), len(of.align)} | {len(row) for row in of.rows} == {len(of.head)}, of.title


def test_tables_without_rows_are_left_out() -> None:
    assert [of.title for of in listings(nothing())] == ["Last run of each stage", "Runs"]


def test_a_stage_is_listed_with_what_it_read_and_why_it_ran() -> None:
    of = replace(stage("embed_users", reason="2 days", hours=0.5), inputs={"tile_days": 3, "snapshots": 7})
    assert listing("Last run of each stage", facts(newest=[of, stage("s", hours=None)])).rows == [
        ["embed_users", "done", "2024-05-31 08:00", "12 s", "1,000", "0.50000", "5.0 kB", "2 days",
         "tile_days v3, snapshots v7", "c0ffee", "facade"],
        ["s", "done", "2024-05-31 08:00", "12 s", "1,000", NONE, "5.0 kB", NONE, "tile_days v3", "c0ffee", "facade"],
    ]  # fmt: skip


def test_the_newest_run_comes_first() -> None:
    runs = [Run("r1", NOW, 700.0, "done", ["a", "b"]), Run("r2", NOW + timedelta(days=1), 4.0, "skipped", [])]
    assert listing("Runs", facts(runs=runs)).rows == [
        ["r2", "2024-06-01 08:00", "skipped", "4.0 s", "up to date"],
        ["r1", "2024-05-31 08:00", "done", "11 min 40 s", "a, b"],
    ]


def test_segments_are_listed_with_their_moves() -> None:
    assert headed("segment", facts()).rows == [["s01", "300", "60%", "tea", ""], ["s03", "200", "40%", "beer", "new"]]
    assert listing("Moves between segments", facts()).rows == [["s01", "s03", "12"], [NONE, "s01", "3"]]


def test_odd_days_are_listed_and_a_gap_is_one_row() -> None:
    plain, missing = {"num_events": 100, "num_rejected": 0, "usual": None}, {"num_events": 0, "is_missing": True}
    days = [
        a_day(0, **plain), a_day(1, **plain | missing), a_day(2, **plain | missing | {"usual": 100.0}),
        a_day(3, **plain | {"num_rejected": 4}), a_day(4, **plain | {"num_events": 19, "usual": 100.0}),
        a_day(5, **plain | missing | {"usual": 100.0}),
    ]  # fmt: skip
    found = listing("Days of the log", facts(log=LogFacts(days, {}, 0.05)))
    assert found.rows == [
        ["2024-01-06", "0", "0", "100", "missing"],
        ["2024-01-05", "19", "0", "100", "far smaller than usual"],
        ["2024-01-04", "100", "4", NONE, ""],
        ["2024-01-02 to 2024-01-03", "0", "0", NONE, "missing"],
    ]
    assert found.note.startswith("6 days, 3 missing;")


def test_drift_is_listed_by_metric_the_newest_first_with_the_limit_that_warns() -> None:
    rows = listing("Drift", facts(drift=drift(0.4, "warn"))).rows
    assert rows[:2] == [
        ["2024-05-30", "psi", "0.4000", "warn", "0.25"],
        ["2024-05-29", "psi", "0.0500", "ok", "0.25"],
    ]
    assert [row[1] for row in rows] == ["psi"] * 10 + ["new_share"] * 10


def test_each_representation_of_a_task_is_a_row() -> None:
    known = facts(evaluation=EvaluationFacts("e", NOW, [a_task("return_7d", (0.1, 0.05, 0.15), touched=None)]))
    assert listing("Evaluation", known).rows[:2] == [
        ["return_7d", "auc", "unknown", "embedding", "0.8000", "0.7800", "0.8200", NONE, NONE, NONE, "500"],
        ["return_7d", "auc", "unknown", "counts", "0.7000", "0.7000", "0.8000", "+0.1000", "+0.0500", "+0.1500",
         "500"],
    ]  # fmt: skip


def test_a_self_check_is_listed_with_what_it_comes_to() -> None:
    found = check_of(raw=(0.02, 0.01, 0.03), pca=(0.004, -0.001, 0.01))
    shown = listing("Self-check", facts(training=TrainingFacts(NOW, 1, 1, 1, [], {}, found)))
    assert shown.note == "of a model trained until 2024-03-01; the embedding is 0.4% ahead of pca [-0.1%, +1.0%]"
    assert (shown.head, shown.align) == (["task", "embedding", "raw", "pca"], "lrrr")
    assert shown.rows[-1] == ["embedding ahead by", "", "+2.0%", "+0.4%"]


def test_losses_are_listed_for_all_blocks_together_and_for_each() -> None:
    metrics = {"train_loss": 0.75, "train_loss.weight_7d": 0.5, "valid_users_loss.weight_7d": 0.25}
    known = facts(training=TrainingFacts(NOW, 1, 1, 1, [], metrics))
    assert listing("Losses by block", known).rows == [
        ["all", "0.750", NONE, NONE], ["weight_7d", "0.500", "0.250", NONE],
    ]  # fmt: skip


def test_a_refused_snapshot_is_listed_with_its_faults() -> None:
    refused = a_snapshot(LAST, revision=2, state="refused", available_at=None, faults=["2 rows", "no users"])
    assert listing("Snapshots", facts(snapshots=[a_snapshot(FIRST), refused])).rows == [
        [f"{SPACE}-20240530-r1", "2024-05-30", "refused", "950", NONE, "2 rows; no users"],
        [f"{SPACE}-20240101-r1", "2024-01-01", "published", "950", "2024-05-31 08:00", NONE],
    ]


def test_spaces_and_consumers_without_a_value_have_a_dash() -> None:
    idle = a_space(in_use=None, newest_as_of=None, newest_users=0, stale=[LAST, FIRST])
    assert headed("space", facts(spaces=[idle])).rows == [
        [SPACE, "serving", NONE, "2024-04-01", "2024-05-31 08:00", NONE, "0", "3", "2"]
    ]
    assert headed("consumer", facts()).rows == [["ads", "team-a", "serving space", SPACE, "2024-05-31 08:00"]]


def test_the_page_shows_the_first_four_hundred_rows() -> None:
    runs = [Run(f"r{k}", NOW, 1.0, "done", []) for k in range(401)]
    found = listing("Runs", facts(runs=runs))
    assert (len(found.rows), found.rows[0][0], found.rows[-1][0]) == (400, "r400", "r1")
    known = facts(runs=runs)
    assert (
        page(known, summarised(known)).count("The first 400 of 401 rows. The JSON file next to this page has all") == 1
    )

"""The results page: written from records alone, and up to date with those that are kept."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality_by_log import LOGS, over_trainings
from benchmarks.results import GOALS, PAGE, QUALITY_LOGS, RECORDS, age_in_commits, benchmark_modules, page, record
from userrep.evaluation.families import leads
from userrep.evaluation.results import Measured
from userrep.model.self_check import AKIN_NOTE

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[2]


_UNIT = r"(?:s|ms|h|minutes|hours|seconds|%|times|MiB|GiB|GB|events/s|rows/s)"
_MEASURED = re.compile(rf"\d ?{_UNIT}(?![\w/])|(?<![\w/])\.\d|\b20\d\d-\d\d-\d\d\b")
_COMPARED = re.compile(rf"\d ?{_UNIT} (?:instead of|less|more|faster|slower|as )")


def a_line(name: str, **more: Any) -> dict[str, Any]:
    return {"benchmark": name, "size": {"users": 1200, "cores": 2}, **more}


def without_ages(text: str) -> str:
    """Return a page without ages, which change with every commit."""
    return re.sub(r"\| (\d+ commits?|unknown) \|\n", "| |\n", text)


def test_the_page_follows_from_its_records() -> None:
    found = (ROOT / PAGE).read_text(encoding="utf-8")
    assert without_ages(found) == without_ages(page(ROOT / RECORDS, lambda _: 0)), "run make results"


def test_a_record_has_what_it_was_measured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    record(a_line("one", value=0.5), 90.4, tmp_path)
    kept = json.loads((tmp_path / "one.json").read_text())
    assert kept["line"] == a_line("one", value=0.5)
    assert kept["seconds"] == 90
    assert len(kept["commit"]) == 7
    assert kept["date"][:2] == "20"
    assert kept["versions"]["pyspark"]


FACTS = {"commit": "abc1234", "date": "2026-11-29", "cores": 2, "load_before": 0.1, "versions": {"torch": "2"}}


def written(folder: Path, *lines: dict[str, Any]) -> str:
    """Return the page of some lines, each two commits old."""
    for line in lines:
        (folder / f"{line['benchmark']}.json").write_text(json.dumps({"line": line, **FACTS}))
    return page(folder, lambda _: 2)


def cells(found: str, name: str) -> list[str]:
    row = next(text for text in found.splitlines() if text.startswith((f"| [`{name}`]", f"| `{name}`")))
    return [cell.strip() for cell in row.split("|")[2:-1]]


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.2, "1.20 (aim reached by the median)"),
        (2.4, "2.40 (reached by the median)"),
        (2.6, "2.60 (missed by the median)"),
    ],
)
def test_a_ratio_is_next_to_its_goals_spread_peer_size_and_age(tmp_path: Path, ratio: float, said: str) -> None:
    line = a_line("pipeline_vs_script", seconds=120.0, peer="a script", peer_seconds=100.0, ratio=ratio, parts={"a": 1})
    found = written(tmp_path, line | {"runs": 3, "range": {"ratio": [1.1, 2.7]}}, a_line("features_growth", value=0.75))
    assert cells(found, "pipeline_vs_script") == [
        said, "≤ 2.5", "≤ 1.3", "1.1 to 2.7, 3 runs", "120.0 s", "a script: 100.0 s", "users 1,200",
        "", "2026-11-29, abc1234, 2 cores, load 0.1", "2 commits",
    ]  # fmt: skip
    assert cells(found, "features_growth")[:2] == ["0.75", "not recorded"]
    assert "- size: users 1,200, cores 2\n- parts: a 1\n- range: ratio" in found


def test_a_record_has_the_seconds_of_the_benchmark(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"line": a_line("savings", value=1), **FACTS, "seconds": 90}))
    assert cells(page(tmp_path, lambda _: 2), "savings")[7] == "1.5 min"


@pytest.mark.parametrize(
    ("ratio", "spread", "said"),
    [
        (1.2, [1.1, 2.5], "1.20 (aim reached)"),
        (2.4, [1.1, 2.5], "2.40 (reached)"),
        (2.6, [2.51, 2.7], "2.60 (missed)"),
        (2.4, None, "2.40 (reached)"),
    ],
)
def test_a_verdict_is_by_the_median_only_if_the_spread_crosses_the_limit(
    tmp_path: Path, ratio: float, spread: list[float] | None, said: str
) -> None:
    more = {"runs": 3, "range": {"ratio": spread}} if spread else {}
    assert cells(written(tmp_path, a_line("pipeline_vs_script", ratio=ratio, **more)), "pipeline_vs_script")[0] == said


@pytest.mark.parametrize(("value", "said"), [(0.6, "aim reached"), (0.4, "reached"), (0.2, "missed")])
def test_more_is_better_for_savings(tmp_path: Path, value: float, said: str) -> None:
    found = cells(written(tmp_path, a_line("savings", value=value)), "savings")
    assert found[:3] == [f"{value} ({said})", "≥ 0.3", "≥ 0.5"]


def test_a_benchmark_without_a_record_is_listed_as_not_measured(tmp_path: Path) -> None:
    found = written(tmp_path, a_line("item_vectors_sample_one", value=1))
    assert cells(found, "tiles_vs_duckdb")[0] == "not measured"
    missing = re.findall(r"^- `(\w+)`$", found.split("## Not measured")[1], flags=re.MULTILINE)
    assert {*missing, *GOALS, "item_vectors_sample"} >= {*benchmark_modules()}
    assert "item_vectors_sample" not in missing


def test_the_interval_of_a_lead_holds_the_trainings() -> None:
    def measured(name: str, value: float) -> Measured:
        return Measured("next_item_7d", "auc", name, (value,), np.full(400, value), "x", {"test": 900})

    first, second = [measured("embedding", 0.6), measured("raw", 0.5)], [measured("embedding", 0.8)]
    lead, low, high = leads(over_trainings([first, second]), ())["raw"]["items"]
    assert lead == pytest.approx(0.4)
    assert (low, high) == pytest.approx((0.2, 0.6))
    assert leads(over_trainings([first]), ()) == leads(first, ())


def test_quality_by_log_names_the_closest_peer_of_each_log(tmp_path: Path) -> None:
    assert (*LOGS,) == QUALITY_LOGS
    line = {
        "benchmark": "quality_ml100k_later", "size": {"seeds": 3}, "value": 0.01,
        "ahead": {
            "raw": {"mean": [0.01, -0.002, 0.03], "mean without *": [0.02, 0.01, 0.03]},
            "pca": {"mean": [0.2, 0.1, 0.3]},
        },
        "not judged": ["return_7d"],
        "values": {"volume_30d": {"embedding": 0.25, "raw": 0.24}, "attribute_age": {"embedding": 0.8}},
        "storage_losses": {"volume_30d": {"int8": [0.0002, -0.0001, 0.0005]}},
    }  # fmt: skip
    found = written(tmp_path, line)
    assert cells(found, "quality_ml100k_later")[:3] == ["0.010 [-0.002, 0.030]", "raw", "3"]
    assert cells(found, "quality_explore_later")[0] == "not measured"
    for row in (
        "| | volume_30d * | attribute_age |", "| embedding | 0.250 | 0.800 |", "| raw | 0.240 |  |",
        "| | mean | mean without * |", "| raw | +0.010 [-0.002, +0.030] | +0.020 [+0.010, +0.030] |", AKIN_NOTE,
        "| volume_30d * | +0.020% [-0.010%, +0.050%] |", "- not judged: return_7d",
    ):  # fmt: skip
        assert row.replace("| |", "|  |") in found


def test_look_alikes_have_recall_lift_and_losses(tmp_path: Path) -> None:
    line = {
        "benchmark": "look_alikes_ml100k", "size": {"log": "ml100k"}, "value": 0.0002,
        "look_alikes": {"look_alikes_20": {"embedding": [0.3, 4.0]}},
        "storage_losses": {"look_alikes_20": {"int8": [0.0002, -0.0001, 0.0005]}},
    }  # fmt: skip
    found = written(tmp_path, line)
    assert cells(found, "look_alikes_ml100k")[0] == "0.0002"
    assert "| embedding | 0.300 (4.00) |" in found
    assert "| look_alikes_20 * | +0.020% [-0.010%, +0.050%] |" in found


def test_an_age_counts_only_commits_that_changed_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True,
                             capture_output=True, text=True)  # fmt: skip
        return ran.stdout.strip()

    def commit(path: str) -> str:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file.exists() and file.read_text()) + ".")
        git("add", "-A")
        git("commit", "-q", "-m", "m")
        return git("rev-parse", "--short=7", "HEAD")

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    measured = commit("userrep/joins/join.py")
    kept = {"line": {"benchmark": "join_growth"}, "commit": measured}
    assert age_in_commits(kept) == 0
    commit("userrep/joins/join.py")
    commit("userrep/training/loop.py")
    commit("benchmarks/join_growth.py")
    commit("docs/results/join_growth.json")
    assert age_in_commits(kept) == 2
    assert age_in_commits(kept | {"commit": "0000000"}) == 0  # rewritten: since the record was added
    commit("userrep/store/tables.py")
    assert age_in_commits(kept | {"commit": "0000000"}) == 1
    assert age_in_commits({"line": {"benchmark": "audience"}, "commit": "0000000"}) is None


def figures(text: str) -> list[str]:
    """Return the paragraphs that give a figure of a benchmark, or compare two measured figures."""
    is_named = re.compile(rf"bench-[a-z]|`(?:{'|'.join(benchmark_modules())})\w*`")
    return [
        paragraph
        for paragraph in re.split(r"\n\s*\n", text)
        if (is_named.search(paragraph) and _MEASURED.search(paragraph)) or _COMPARED.search(paragraph)
    ]


def test_documents_leave_figures_of_benchmarks_to_the_results_page() -> None:
    """Decisions keep the figures that they were made on, with a date."""
    found = {}
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        name = file.relative_to(ROOT)
        if name not in (PAGE, Path("CHANGELOG.md")) and not {"decisions", "notebooks"} & {*name.parts}:
            found[str(name)] = figures(file.read_text(encoding="utf-8"))
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    "text",
    [
        "`make bench-joins` took 17 s.",
        "| `stream_latency` | p95 2.9 s |",
        "Sharing saves 64 % (`savings`).",
        "`tiles_vs_duckdb_csv` was measured on 2026-11-29.",
        "A run takes 81 s instead of 23 s.",
    ],
)
def test_a_figure_of_a_benchmark_is_found(text: str) -> None:
    assert figures(f"One.\n\n{text}\n\nTwo.") == [text]
    assert figures("`make bench-audience` measures one million users of 120 numbers.\n\nIt waits up to 40 s.") == []

"""The results page: written from records alone, and up to date with those that are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import PAGE, RECORDS, page, record

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[2]


def a_line(name: str, **more: Any) -> dict[str, Any]:
    return {"benchmark": name, "size": {"users": 1200, "cores": 2}, **more}


def test_the_page_is_what_its_records_say() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(ROOT / RECORDS)


def test_a_record_says_what_it_was_measured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    record(a_line("one", value=0.5), tmp_path)
    kept = json.loads((tmp_path / "one.json").read_text())
    assert kept["line"] == a_line("one", value=0.5)
    assert len(kept["commit"]) == 7
    assert kept["date"][:2] == "20"
    assert kept["versions"]["pyspark"]


@pytest.mark.parametrize(
    ("ratio", "said"), [(1.2, "1.20 (aim reached)"), (2.4, "2.40 (reached)"), (2.6, "2.60 (missed)")]
)
def test_a_ratio_stands_beside_its_goals(tmp_path: Path, ratio: float, said: str) -> None:
    line = a_line("pipeline_vs_script", seconds=120.0, peer="a script", peer_seconds=100.0, ratio=ratio, parts={"a": 1})
    facts = {"commit": "abc1234", "date": "2026-11-29", "cores": 2, "load_before": 0.1, "versions": {"torch": "2"}}
    (tmp_path / "x.json").write_text(json.dumps({"line": line, **facts}))
    (tmp_path / "y.json").write_text(json.dumps({"line": a_line("other", value=0.75), **facts}))
    found = page(tmp_path)
    row = next(text for text in found.splitlines() if text.startswith("| [`pipeline_vs_script`]"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "120.0 s", "a script: 100.0 s", said, "2.5", "1.3", "2026-11-29, abc1234, 2 cores",
    ]  # fmt: skip
    assert "| [`other`](#other) | 0.75 | 2026-11-29, abc1234, 2 cores |" in found
    assert "- size: users 1,200, cores 2\n- parts: a 1\n- load before: 0.1\n- versions: torch 2\n" in found

"""The results page: writes ``docs/results.md`` from the records in ``docs/results``.

``make bench-NAME RECORD=1`` keeps a benchmark's lines there, one file each, with commit, date, cores, versions and
load.

    make results
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORDS, PAGE = Path("docs/results"), Path("docs/results.md")
_LIBRARIES = ("pyspark", "delta-spark", "deltalake", "torch", "pyarrow", "duckdb", "implicit")
_LOAD = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # before the benchmark itself makes any


@dataclass(frozen=True)
class Goal:
    """The required and the desired upper limit of a benchmark's ``ratio``."""

    must: float
    aim: float

    def verdict(self, ratio: float) -> str:
        """Return which goal a ratio meets: the aim, the required one, or neither."""
        if ratio <= self.aim:
            return "aim reached"
        return "reached" if ratio <= self.must else "missed"


GOALS = {
    "pipeline_vs_script": Goal(must=2.5, aim=1.3),
    "daily_vs_script": Goal(must=0.5, aim=0.2),
}
_INTRO = """# Results

Benchmark results, with the machine and the commit that they were measured on, and their goals. `make results` writes
this page from the records in `docs/results/`; a benchmark that runs with `RECORD=1` updates its record, for example
`make bench-pipeline RECORD=1`. A ratio is our seconds over the peer's in the same run: lower is better.
"""


def record(line: dict[str, Any], folder: Path = RECORDS) -> None:
    """Keep a benchmark's line, with the environment it was measured in."""
    git = shutil.which("git") or "git"
    commit = subprocess.run([git, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True)
    facts = {
        "line": line,
        "commit": commit.stdout.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "load_before": _LOAD,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{line['benchmark']}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def page(folder: Path = RECORDS) -> str:
    """Return the page with all records."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    ratios = [kept for kept in records if "ratio" in kept["line"]]
    values = [kept for kept in records if "value" in kept["line"]]
    parts = [_INTRO]
    if ratios:
        head = ["Benchmark", "Ours", "Peer", "Ratio", "Must", "Aim", "Measured"]
        parts.append(_table("Against peers", head, [_against_peer(kept) for kept in ratios]))
    if values:
        head = ["Benchmark", "Value", "Measured"]
        rows = [[_named(kept), f"{kept['line']['value']:,}", _measured(kept)] for kept in values]
        parts.append(_table("Other figures", head, rows))
    for kept in records:
        parts.append(_details(kept))
    return "\n".join(parts)


def _against_peer(kept: dict[str, Any]) -> list[str]:
    line, goal = kept["line"], GOALS.get(kept["line"]["benchmark"])
    ratio = f"{line['ratio']:.2f}"
    if goal is not None:
        ratio += f" ({goal.verdict(line['ratio'])})"
    goals = [str(goal.must), str(goal.aim)] if goal else ["", ""]
    peer = f"{line['peer']}: {line['peer_seconds']:,.1f} s"
    return [_named(kept), f"{line['seconds']:,.1f} s", peer, ratio, *goals, _measured(kept)]


def _named(kept: dict[str, Any]) -> str:
    return f"[`{kept['line']['benchmark']}`](#{kept['line']['benchmark']})"


def _measured(kept: dict[str, Any]) -> str:
    return f"{kept['date']}, {kept['commit']}, {kept['cores']} cores"


def _details(kept: dict[str, Any]) -> str:
    """Return a record's details in addition to its main value: size, parts, load and versions."""
    line = kept["line"]
    shown = ("benchmark", "seconds", "peer", "peer_seconds", "ratio", "value")
    rows = [[name.replace("_", " "), _plain(value)] for name, value in line.items() if name not in shown]
    rows += [["load before", _plain(kept["load_before"])], ["versions", _plain(kept["versions"])]]
    return f"## {line['benchmark']}\n\n" + "\n".join(f"- {name}: {text}" for name, text in rows) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(part)}" for name, part in value.items())
    if isinstance(value, int | float):
        return f"{value:,}"
    return str(value)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

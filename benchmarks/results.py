"""The results page: writes ``docs/results.md`` from the records in ``docs/results``.

``make bench-NAME RECORD=1`` keeps a benchmark's lines there, one file each, with commit, date, cores, versions and
load. A benchmark without a record is listed as not measured. The age of a record is the number of commits since then
that changed the benchmark or the code it measures.

    make results
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from userrep.model.self_check import AKIN_NOTE, marked

RECORDS, PAGE = Path("docs/results"), Path("docs/results.md")
QUALITY_LOGS = ("online_retail_ii", "complete_journey", "ml100k", "repeat", "explore", "churn")
_LIBRARIES = ("pyspark", "delta-spark", "deltalake", "torch", "pyarrow", "duckdb", "implicit")
_LOAD = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # before the benchmark itself makes any
_MISSING = "not measured"

# Folders of the package that a benchmark measures, by the beginning of its name; all of it if none is listed.
_MEASURES = {
    "tiles": ("tiles", "sources", "store"),
    "features": ("features", "store"),
    "refresh": ("features", "store"),
    "late_day": ("features", "tiles", "store"),
    "backfill": ("features", "store"),
    "join": ("joins", "spaces", "store"),
    "inference": ("inference", "model", "features", "spaces", "store"),
    "training": ("training", "model"),
    "reader": ("training", "model"),
    "item_vectors": ("items",),
    "audience": ("audiences", "store"),
}

Record = dict[str, Any]
Age = Callable[[Record], int | None]  # in commits; None if the record's commit is unknown


@dataclass(frozen=True)
class Goal:
    """The required and the desired limit of a benchmark's ``ratio`` or ``value``: upper limits unless ``more``."""

    must: float
    aim: float
    more: bool = False

    def verdict(self, figure: float) -> str:
        """Return which goal a figure meets: the aim, the required one, or neither."""
        if self._is_met(self.aim, figure):
            return "aim reached"
        return "reached" if self._is_met(self.must, figure) else "missed"

    def is_certain(self, figures: Sequence[float]) -> bool:
        """Return whether all runs are on the same side of the required limit."""
        return len({self._is_met(self.must, figure) for figure in figures}) <= 1

    def _is_met(self, limit: float, figure: float) -> bool:
        return figure >= limit if self.more else figure <= limit


_TILES, _UDF, _JOIN = Goal(must=1.7, aim=1.2), Goal(must=1, aim=0.5), Goal(must=1, aim=0.5)
GOALS = {
    "pipeline_vs_script": Goal(must=2.5, aim=1.3),
    "daily_vs_script": Goal(must=0.5, aim=0.2),
    "tiles_vs_duckdb": _TILES,
    "tiles_vs_duckdb_json": _TILES,
    "tiles_vs_duckdb_csv": _TILES,
    "features_vs_duckdb": Goal(must=2, aim=1.2),
    "features_vs_spark_sql": Goal(must=0.5, aim=0.3),
    "refresh_vs_full": Goal(must=0.12, aim=0.08),
    "late_day_vs_full": Goal(must=0.2, aim=0.1),
    "inference_vs_torch": Goal(must=1.9, aim=1.3),
    "inference_vs_map_in_arrow": _UDF,
    "inference_vs_pandas_udf": _UDF,
    "inference_vs_predict_batch_udf": _UDF,
    "inference_vs_mlflow_spark_udf": _UDF,
    "join_vs_duckdb": Goal(must=1.5, aim=1.5),  # 2.5 and 2 before tasks wrote the answer
    "join_vs_range": _JOIN,
    "join_vs_tempo": _JOIN,
    "join_vs_feast": _JOIN,
    "join_into_fit": _JOIN,
    "training_vs_memory": Goal(must=1.1, aim=1.05),
    "training_two_ranks": Goal(must=0.6, aim=0.8, more=True),
    "stream_latency": Goal(must=5, aim=2),
    "stream_throughput": Goal(must=2000, aim=5000, more=True),
    "audience": Goal(must=60, aim=30),
    "savings": Goal(must=0.3, aim=0.5, more=True),
    "savings_ten_teams": Goal(must=0.5, aim=0.7, more=True),
}
_INTRO = """# Results

Benchmark results with their goals, and the machine and commit that they were measured on. `make results` writes this
page from the records in `docs/results/`. A benchmark that runs with `RECORD=1` updates its record, for
example `make bench-tiles-vs-duckdb RECORD=1`.

A ratio is our median seconds over the peer's in the same run: lower is better. Other values: `training_two_ranks`,
share of twice the speed of one rank; `stream_latency`, 95th percentile in seconds; `stream_throughput`, events per
second; `audience`, microseconds per user; `savings`, share of CPU seconds saved; `largest_run`, seconds;
`item_vectors_sample`, AUC; `look_alikes`, largest relative loss of int8. Goals are judged by the median. *By the
median* means that the spread, the lowest and the highest run, crosses the limit. *All peers seconds* are single runs
that choose the fastest peer. Each record lists its size, how long the whole benchmark takes, and the load of the
machine before it. A load of 2 or more on 2 cores means that the machine was busy. Age counts the commits between a
record and this page that changed the benchmark or the code it measures: a high age means a figure that may be outdated.

In tables of quality, values are AUC, except R2 for `volume` and nDCG@50 for `neighbours`. `look_alikes` are AUC there,
and recall in the records of that name. A lead is relative, the mean over families of tasks, with a 90 % interval;
negative means behind. [Evaluation](reference/evaluation.md) defines tasks, representations and probes.
"""


def record(line: dict[str, Any], seconds: float, folder: Path = RECORDS) -> None:
    """Keep a benchmark's line, with the environment it was measured in and the ``seconds`` that the command took."""
    facts = {
        "line": line,
        "commit": _git("rev-parse", "--short=7", "HEAD"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "load_before": _LOAD,
        "seconds": round(seconds),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{line['benchmark']}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def age_in_commits(kept: Record) -> int | None:
    """Return how many commits since a record changed what it measures.

    A commit that was rewritten is unknown; the commit that added the record counts instead.
    """
    name = kept["line"]["benchmark"]
    folders = next((folders for start, folders in _MEASURES.items() if name.startswith(start)), ("",))
    paths = [f"benchmarks/{module_of(name)}.py", *(f"userrep/{folder}" for folder in folders)]
    since = kept["commit"]
    if not since or _git("merge-base", "--is-ancestor", since, "HEAD") is None:
        since = _git("log", "-1", "--format=%H", "--", f"{RECORDS}/{name}.json")
    return int(_git("rev-list", "--count", f"{since}..HEAD", "--", *paths) or 0) if since else None


def module_of(name: str) -> str:
    """Return the module that prints a line: the longest name that the line's name begins with."""
    if name.startswith(tuple(f"quality_{log}_" for log in QUALITY_LOGS)):
        return "quality_by_log"
    return max((m for m in benchmark_modules() if name.startswith(m)), key=len, default=name)


@cache
def benchmark_modules() -> list[str]:
    """Return the names of all benchmarks."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [file.stem for file in files if "\ndef measure" in file.read_text(encoding="utf-8")]


def page(folder: Path = RECORDS, age: Age = age_in_commits) -> str:
    """Return the page with all records."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    records = {one["line"]["benchmark"]: one for one in kept}
    by_log = [f"quality_{log}_later" for log in QUALITY_LOGS]
    by_log += [name for name in records if module_of(name) == "quality_by_log" and name not in by_log]
    others = [name for name in records if name not in GOALS and name not in by_log]
    recorded = {module_of(name) for name in records}
    missing = [name for name in benchmark_modules() if name not in recorded and name not in GOALS]
    head = ["Benchmark", "Reached", "Must", "Aim", "Spread", "Ours", "Peer", "Size", "Takes", "Measured", "Age"]
    quality = ["Log", "Lead over the closest peer", "Closest peer", "Trainings", "Measured", "Age"]
    parts = [
        _INTRO,
        _table("Goals", head, [_goal_row(name, records.get(name), age) for name in GOALS]),
        _table("Quality by log", quality, [_quality_row(name, records.get(name), age) for name in by_log]),
        _table("Other benchmarks", head[:2] + head[4:], [_row(records[name], age) for name in others]),
        "## Not measured\n\n" + "\n".join(f"- `{name}`" for name in missing) + "\n",
    ]
    return "\n".join([*parts, *map(_details, kept)])


def _goal_row(name: str, kept: Record | None, age: Age) -> list[str]:
    goal = GOALS[name]
    goals = [f"{'≥' if goal.more else '≤'} {limit:,}" for limit in (goal.must, goal.aim)]
    if kept is None:
        return [f"`{name}`", _MISSING, *goals, *[""] * 7]
    named, reached, *rest = _row(kept, age)
    verdict = goal.verdict(_figure(kept["line"]))
    if not goal.is_certain(_spread(kept["line"])):
        verdict += " by the median"
    return [named, f"{reached} ({verdict})", *goals, *rest]


def _row(kept: Record, age: Age) -> list[str]:
    line, low_high = kept["line"], _spread(kept["line"])
    reached = f"{line['ratio']:.2f}" if "ratio" in line else f"{line['value']:,}"
    spread = f"{low_high[0]:,} to {low_high[1]:,}, {line['runs']} runs" if low_high else "not recorded"
    seconds = f"{line['seconds']:,.1f} s" if "seconds" in line else ""
    peer = str(line.get("peer", "")) + (f": {line['peer_seconds']:,.1f} s" if "peer_seconds" in line else "")
    takes = f"{kept['seconds'] / 60:.1f} min" if "seconds" in kept else ""
    return [_named(kept), reached, spread, seconds, peer, _size(line), takes, _measured(kept), _age(kept, age)]


def _quality_row(name: str, kept: Record | None, age: Age) -> list[str]:
    if kept is None:
        return [f"`{name}`", _MISSING, "", "", "", ""]
    leads = {peer: families["mean"] for peer, families in kept["line"]["ahead"].items()}
    closest = min(leads, key=lambda peer: float(leads[peer][0]))
    lead, low, high = leads[closest]
    seeds = str(kept["line"]["size"]["seeds"])
    return [_named(kept), f"{lead:.3f} [{low:.3f}, {high:.3f}]", closest, seeds, _measured(kept), _age(kept, age)]


def _figure(line: dict[str, Any]) -> float:
    return float(line.get("ratio", line.get("value")))


def _spread(line: dict[str, Any]) -> list[float]:
    """Return the lowest and the highest run of a line's ratio or value; empty if they were not recorded."""
    spread: list[float] = line.get("range", {}).get("ratio" if "ratio" in line else "value", [])
    return spread


def _named(kept: Record) -> str:
    return f"[`{kept['line']['benchmark']}`](#{kept['line']['benchmark']})"


def _size(line: dict[str, Any]) -> str:
    return _plain({name: value for name, value in line["size"].items() if name not in ("cores", "seed")})


def _measured(kept: Record) -> str:
    return f"{kept['date']}, {kept['commit']}, {kept['cores']} cores, load {kept['load_before']:.1f}"


def _age(kept: Record, age: Age) -> str:
    found = age(kept)
    return "unknown" if found is None else f"{found} commit{'s' * (found != 1)}"


def _git(*arguments: str) -> str | None:
    """Return the output of git in the working directory; None if it fails."""
    ran = subprocess.run([shutil.which("git") or "git", *arguments], capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else None


def _details(kept: Record) -> str:
    """Return a record's details in addition to its main value: size, parts, load and versions."""
    line = kept["line"]
    if "storage_losses" in line:
        return _quality_details(kept)
    shown = ("benchmark", "seconds", "peer", "peer_seconds", "ratio", "value", "runs")
    rows = [[name.replace("_", " "), _plain(value)] for name, value in line.items() if name not in shown]
    rows += [["load before", _plain(kept["load_before"])], ["versions", _plain(kept["versions"])]]
    return f"## {line['benchmark']}\n\n" + "\n".join(f"- {name}: {text}" for name, text in rows) + "\n"


def _quality_details(kept: Record) -> str:
    """Return the tables of a log's quality or look-alikes: representations in rows, tasks or families in columns."""
    line = kept["line"]
    by_task = {
        task: {name: f"{value:.3f}" for name, value in found.items()} for task, found in line.get("values", {}).items()
    }
    leads: dict[str, dict[str, str]] = {}
    for peer, families in line.get("ahead", {}).items():
        for family, (lead, low, high) in families.items():
            leads.setdefault(family, {})[peer] = f"{lead:+.3f} [{low:+.3f}, {high:+.3f}]"
    alike = {
        task: {name: f"{recall:.3f} ({lift:.2f})" for name, (recall, lift) in found.items()}
        for task, found in line.get("look_alikes", {}).items()
    }
    losses: dict[str, dict[str, str]] = {}
    for task, found in line.get("storage_losses", {}).items():
        for storage, (loss, low, high) in found.items():
            losses.setdefault(storage, {})[task] = f"{loss:+.3%} [{low:+.3%}, {high:+.3%}]"
    facts = {"size": line["size"]}
    if "not judged" in line:
        facts["not judged"] = ", ".join(line["not judged"]) or "none"
    facts |= {"load before": kept["load_before"], "versions": kept["versions"]}
    parts = [f"## {line['benchmark']}\n\n" + "\n".join(f"- {name}: {_plain(fact)}" for name, fact in facts.items())]
    for caption, columns in (
        ("Values by task", by_task),
        ("Leads of the embedding by family of tasks: relative, for R2 the difference", leads),
        ("Look-alike audiences: recall (lift)", alike),
        ("What other storage types lose: relative, for R2 the difference", losses),
    ):
        if columns:
            parts.append(f"{caption}:\n\n{_transposed(columns, _akin(line))}")
    return "\n\n".join([*parts, AKIN_NOTE]) + "\n"


def _akin(line: dict[str, Any]) -> set[str]:
    """Return the tasks and families that are akin to training."""
    from userrep.evaluation.families import FAMILIES  # not above, since all benchmarks import this module
    from userrep.evaluation.tasks.task import is_akin_to_training

    tasks = [*line.get("values", {}), *line.get("look_alikes", {}), *line["storage_losses"]]
    families = {family for family, prefixes in FAMILIES.items() if any(map(is_akin_to_training, prefixes))}
    return families | set(filter(is_akin_to_training, tasks))


def _transposed(columns: dict[str, dict[str, str]], akin: set[str]) -> str:
    """Return a table with the inner keys in rows, and names in ``akin`` marked."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[marked(name, name in akin), *(column.get(name, "") for column in columns.values())] for name in names]
    return markdown_table(["", *(marked(name, name in akin) for name in columns)], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(part)}" for name, part in value.items())
    if isinstance(value, int | float):
        return f"{value:,}"
    return str(value)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    return f"## {title}\n\n{markdown_table(head, rows)}\n"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

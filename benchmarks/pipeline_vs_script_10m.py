"""How long does a first run on 10M events take, compared with the script of ``pipeline_vs_script``?

The log is generated: 130,000 users, 20,000 items, 150 days. It is drawn once and kept. The dates, versions and epochs
are those that the pipeline chooses, and the two sides are compared as on Online Retail II. The script holds all rows of
all dates in memory, about 5 GB.

    make bench-pipeline-vs-script-10m
    python -m benchmarks.pipeline_vs_script_10m --small
"""

import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

from benchmarks import pipeline_vs_script
from benchmarks.pipeline_vs_script import FirstRun
from benchmarks.report import Line, ask, print_lines, progress

NAME = "pipeline_vs_script_10m"
_GENERATE = Path(__file__).parents[1] / "jobs" / "generate_events.py"
_DAYS, _AS_OF = 150, date(2024, 5, 25)
_CONFIG = """
root: root
events: {{path: {log}/events, columns: {{user_id: user_id, item_id: item_id, event_at: event_at, event_id: event_id}}}}
items: {{path: {log}/items, columns: {{item_id: item_id, text: title}}}}
users: {{path: {log}/users, columns: {{user_id: user_id}}, attributes: [country, age_band]}}
windows_days: [7, 30, 90]
history_days: 0
item_vectors: {{behaviour: {{kind: als, dim: 80}}, content: {{kind: text, dim: 80}}}}
training: {{as_ofs: {{until: {until}}}}}
"""


@dataclass(frozen=True)
class GeneratedLog:
    """The size of a generated log; a user has about 80 events."""

    users: int = 130_000
    items: int = 20_000

    def of_users(self, users: int) -> "GeneratedLog":
        return replace(self, users=users)


SMALL = GeneratedLog(users=300, items=300)


def measure(size: GeneratedLog, root: Path, runs: int) -> list[Line]:
    """Draw the log if it is missing, and run both."""
    log = root / f"generated-{size.users}-{size.items}-{_DAYS}"
    if not log.exists():
        progress(f"drawing {log}")
        staged = log.with_name(f".{log.name}-{uuid4().hex}")  # a killed run leaves no half of a log behind
        numbers = {"users": size.users, "items": size.items, "days": _DAYS}
        options = [f"--{name}={number}" for name, number in numbers.items()]
        subprocess.run([sys.executable, str(_GENERATE), f"--out={staged}", *options], check=True)
        staged.rename(log)
    config = root / f"generated_{size.users}_users.yaml"
    config.write_text(_CONFIG.format(log=log, until=_AS_OF - timedelta(days=35)), encoding="utf-8")
    return pipeline_vs_script.measure(FirstRun(str(config), _AS_OF), root, runs, name=NAME)


if __name__ == "__main__":
    asked = ask(NAME, GeneratedLog(), small=SMALL, runs=3, unit="users", number=GeneratedLog.users,
                resized=GeneratedLog().of_users)  # fmt: skip
    print_lines(NAME, lambda: measure(asked.size, asked.root, asked.runs))

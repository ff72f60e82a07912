"""How long does a first run on 10M events take, compared with the script of ``pipeline_vs_script``?

The log is generated: 130,000 users, 20,000 items, 150 days. It is drawn once and kept. The dates, versions and epochs
are those that the pipeline chooses, and the two sides are compared as on Online Retail II. The script holds all rows of
all dates in memory, 6 GB.

    make bench-pipeline-vs-script-10m
    python -m benchmarks.pipeline_vs_script_10m --small
"""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from benchmarks import pipeline_vs_script
from benchmarks.pipeline_vs_script import FirstRun
from benchmarks.report import Line, ask, print_lines, progress
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log

NAME = "pipeline_vs_script_10m"
SPEC = LogSpec(num_users=130_000, num_items=20_000, malformed_share=0)  # the script does not check rows
SMALL = replace(SPEC, num_users=1_000, num_items=300)
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


def measure(spec: LogSpec, root: Path, runs: int) -> list[Line]:
    """Draw the log if it is missing, and run both."""
    log = root / f"generated-{spec.num_users}-{spec.num_items}-{spec.num_days}-seed{spec.seed}"
    if not log.exists():
        _draw(spec, log)
    as_of = spec.first_day + timedelta(days=spec.num_days - 5)
    config = root / f"generated_{spec.num_users}_users.yaml"
    config.write_text(_CONFIG.format(log=log, until=as_of - timedelta(days=35)), encoding="utf-8")
    return pipeline_vs_script.measure(FirstRun(str(config), as_of), root, runs, name=NAME)


def _draw(spec: LogSpec, log: Path) -> None:
    progress(f"drawing {log}")
    staged = log.with_name(f".{log.name}-{uuid4().hex}")  # a killed run leaves no half of a log behind
    spark = get_session(conf={"spark.driver.memory": "6g"})
    try:
        generate_log(spark, spec, str(staged))
    finally:
        spark.stop()
        shutil.rmtree(staged / "truth", ignore_errors=True)
    staged.rename(log)


if __name__ == "__main__":
    asked = ask(NAME, SPEC, small=SMALL, runs=3, unit="users", number=SPEC.num_users,
                resized=lambda users: replace(SPEC, num_users=users))  # fmt: skip
    print_lines(NAME, lambda: measure(asked.size, asked.root, asked.runs))

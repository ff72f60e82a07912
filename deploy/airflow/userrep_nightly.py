"""DAGs for Airflow 3: the nightly and the weekly jobs of userrep. docs/how-to/schedulers.md describes them.

Workers need userrep and its configuration at the paths below, or at those in the environment of the DAG processor.
Spark runs where the configuration's ``spark.master`` says. Every task is safe to retry: work that is done is up to date
and skipped.
"""

import logging
import os
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

USERREP = os.environ.get("USERREP_BIN", "/opt/userrep/.venv/bin/userrep")
CONFIG = os.environ.get("USERREP_CONFIG", "/opt/userrep/conf/production.yaml")
POOL = os.environ.get("USERREP_POOL", "default_pool")
AS_OF = "--as-of {{ data_interval_end | ds }}"  # includes all events before the day on which the run starts


def as_id(run_id: str) -> str:
    """Convert an Airflow run id to a userrep run id, under which all tasks of the run are recorded."""
    return "airflow-" + re.sub(r"[^a-z0-9_-]+", "-", run_id.lower())[:56]


def log_failure(context: Mapping[str, Any]) -> None:
    """Log one line when a task has failed after its last retry. Replace this to send it to your team.

    The section ``alerts`` of the configuration sends messages of its own, with the findings.
    """
    task, error = context["task_instance"], " ".join(str(context.get("exception")).split())
    logging.getLogger("airflow.task").error("userrep: %s.%s failed: %s", task.dag_id, task.task_id, error)


COMMON = {
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "catchup": False,  # for missed days, run `userrep backfill --from FIRST --to LAST`
    "max_active_runs": 1,
    "max_active_tasks": 1,
    "user_defined_filters": {"as_id": as_id},
    "default_args": {
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "pool": POOL,
        "on_failure_callback": log_failure,
    },
    "tags": ["userrep"],
}


def userrep(task_id: str, command: str, **more: object) -> BashOperator:
    """Create a task that runs a userrep command."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"exec {shlex.quote(USERREP)} {command} --config {shlex.quote(CONFIG)}",
        env={"USERREP_LOG": "json", "USERREP_RUN_ID": "{{ run_id | as_id }}"},
        append_env=True,
        do_xcom_push=False,
        **more,
    )


with DAG("userrep_nightly", schedule="0 2 * * *", **COMMON):
    # A separate task, since it fails while the log is incomplete and is retried for 3 hours.
    tiles = userrep(
        "build_activity_tiles", f"run build_activity_tiles {AS_OF}", retries=6, retry_delay=timedelta(minutes=30)
    )
    daily = userrep("daily", f"daily {AS_OF}")
    drift = userrep("monitor_drift", f"run monitor_drift {AS_OF}")
    forget = userrep("forget_users", "forget", trigger_rule="all_done")  # erasure must not depend on the snapshot
    tiles >> daily >> [drift, forget]

with DAG("userrep_weekly", schedule="0 12 * * SUN", **COMMON):
    userrep("maintain_tables", "run maintain_tables")

"""DAGs for Airflow 3: the nightly and the weekly jobs of userrep. docs/how-to/schedulers.md describes them.

Workers need userrep and its configuration at the paths below. Spark runs where the configuration's ``spark.master``
says. Every task is safe to retry: work that is done is up to date and skipped.
"""

import re
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

USERREP = "/opt/userrep/.venv/bin/userrep"
CONFIG = "/opt/userrep/conf/production.yaml"
AS_OF = "--as-of {{ data_interval_end | ds }}"  # includes all events before the day on which the run starts


def as_id(run_id: str) -> str:
    """Convert an Airflow run id to a userrep run id, under which all tasks of the run are recorded."""
    return "airflow-" + re.sub(r"[^a-z0-9_-]+", "-", run_id.lower())[:56]


COMMON = {
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "catchup": False,  # for missed nights, run `userrep backfill --from D --to D`
    "max_active_runs": 1,
    "max_active_tasks": 1,
    "user_defined_filters": {"as_id": as_id},
    "default_args": {"retries": 2, "retry_delay": timedelta(minutes=5)},
    "tags": ["userrep"],
}


def userrep(task_id: str, command: str, **more: object) -> BashOperator:
    """Create a task that runs a userrep command."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"exec {USERREP} {command} --config {CONFIG}",
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

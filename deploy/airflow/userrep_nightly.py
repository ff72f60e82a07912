"""Two DAGs for Airflow 3: userrep every night, and what is enough once a week. docs/schedulers.md is the page on them.

Workers need userrep and its configuration in the places named here; where Spark runs is the configuration's
``spark.master``. Every task can be run again: what is done is found to be up to date.
"""

import re
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

USERREP = "/opt/userrep/.venv/bin/userrep"
CONFIG = "/opt/userrep/conf/production.yaml"
AS_OF = "--as-of {{ data_interval_end | ds }}"  # events before the start of the day on which the night is


def as_id(run_id: str) -> str:
    """Make an Airflow run's id one of userrep's, under which all its tasks are recorded."""
    return "airflow-" + re.sub(r"[^a-z0-9_-]+", "-", run_id.lower())[:56]


SAME = {
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "catchup": False,  # nights that were missed: `userrep backfill --from D --to D`
    "max_active_runs": 1,
    "max_active_tasks": 1,
    "user_defined_filters": {"as_id": as_id},
    "default_args": {"retries": 2, "retry_delay": timedelta(minutes=5)},
    "tags": ["userrep"],
}


def userrep(task_id: str, command: str, **more: object) -> BashOperator:
    """Make a task of a command of userrep."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"exec {USERREP} {command} --config {CONFIG}",
        env={"USERREP_LOG": "json", "USERREP_RUN_ID": "{{ run_id | as_id }}"},
        append_env=True,
        do_xcom_push=False,
        **more,
    )


with DAG("userrep_nightly", schedule="0 2 * * *", **SAME):
    # By itself, since it is the one that waits: a log that has not come is refused, and looked for for 3 hours.
    tiles = userrep(
        "build_activity_tiles", f"run build_activity_tiles {AS_OF}", retries=6, retry_delay=timedelta(minutes=30)
    )
    daily = userrep("daily", f"daily {AS_OF}")
    drift = userrep("monitor_drift", f"run monitor_drift {AS_OF}")
    forget = userrep("forget_users", "forget", trigger_rule="all_done")  # waits for no snapshot
    tiles >> daily >> [drift, forget]

with DAG("userrep_weekly", schedule="0 12 * * SUN", **SAME):
    userrep("maintain_tables", "run maintain_tables")

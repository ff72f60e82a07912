"""The DAGs as a real Airflow reads them: tasks, their order, retries, and the commands that a night renders."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import configuration_of
from userrep.ids import checked_name

ROOT = Path(__file__).parents[2]
AIRFLOW = Path(sys.prefix) / "airflow" / "bin" / "python"  # an environment of its own
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not AIRFLOW.exists(), reason="Airflow is missing: `make test-all` installs it"),
]

READ = """
import json, logging, pendulum, sys
from types import SimpleNamespace
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
logged = []
logging.getLogger("airflow.task").error = lambda text, *values: logged.append(text % values)
night = {"data_interval_end": pendulum.datetime(2024, 6, 2, 2), "run_id": "scheduled__2024-06-02T02:00:00+00:00"}
dags = {}
for dag in bag.dags.values():
    for task in dag.tasks:
        task.render_template_fields(night, dag.get_template_env())
    dags[dag.dag_id] = {
        "catchup": dag.catchup, "max_active_runs": dag.max_active_runs, "schedule": dag.schedule,
        "tasks": [{
            "id": task.task_id, "after": sorted(task.upstream_task_ids), "retries": task.retries,
            "delay": task.retry_delay.total_seconds(), "rule": task.trigger_rule, "command": task.bash_command,
            "env": task.env, "pool": task.pool,
        } for task in dag.topological_sort()],
    }
failed = {"task_instance": SimpleNamespace(dag_id="d", task_id="t"), "exception": OSError("one line\\nand another")}
for dag in bag.dags.values():
    for task in dag.tasks:
        for callback in task.on_failure_callback:
            callback(failed)
print(json.dumps({"errors": bag.import_errors, "dags": dags, "logged": logged}))
"""


def loaded(home: Path, **variables: str) -> dict[str, Any]:
    """Load the DAGs, render their tasks for the night to 2 June 2024, and report a failure of each task."""
    environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": ""}
    environment |= variables
    command = [str(AIRFLOW), "-c", READ, str(ROOT / "deploy" / "airflow" / "userrep_nightly.py")]
    ran = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert found["errors"] == {}
    return found


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return loaded(tmp_path_factory.mktemp("airflow"))["dags"]  # type: ignore[no-any-return]


def test_airflow_reads_two_dags_that_neither_catch_up_nor_overlap(dags: dict[str, Any]) -> None:
    assert {name: dag["schedule"] for name, dag in dags.items()} == {
        "userrep_nightly": "0 2 * * *", "userrep_weekly": "0 12 * * SUN"
    }  # fmt: skip
    assert {(dag["catchup"], dag["max_active_runs"]) for dag in dags.values()} == {(False, 1)}


def test_a_night_has_its_tasks_in_order_and_tries_each_again(dags: dict[str, Any]) -> None:
    tasks = {task["id"]: task for task in dags["userrep_nightly"]["tasks"]}
    assert {name: task["after"] for name, task in tasks.items()} == {
        "build_activity_tiles": [], "daily": ["build_activity_tiles"], "monitor_drift": ["daily"],
        "forget_users": ["daily"],
    }  # fmt: skip
    assert {name: task["rule"] for name, task in tasks.items() if task["rule"] != "all_success"} == {
        "forget_users": "all_done"
    }
    assert {name: (task["retries"], task["delay"]) for name, task in tasks.items()} == {
        "build_activity_tiles": (6, 1800), "daily": (2, 300), "monitor_drift": (2, 300), "forget_users": (2, 300)
    }  # fmt: skip


def test_every_task_is_a_command_that_userrep_takes_as_of_the_interval_s_end_under_one_id(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [task for dag in dags.values() for task in dag["tasks"]]
    for task in tasks:
        do, program, *arguments = shlex.split(task["command"])
        assert (do, program) == ("exec", "/opt/userrep/.venv/bin/userrep")
        assert arguments[-2:] == ["--config", "/opt/userrep/conf/production.yaml"]
        configuration_of([*arguments[:-1], str(ROOT / "conf" / "production.yaml")], monkeypatch)
    dated = {task["id"] for task in tasks if "--as-of 2024-06-02" in task["command"]}
    assert dated == {"build_activity_tiles", "daily", "monitor_drift"}
    (run_id,) = {task["env"]["USERREP_RUN_ID"] for task in tasks}
    assert checked_name(run_id, "run id") == run_id == "airflow-scheduled__2024-06-02t02-00-00-00-00"
    assert {task["env"]["USERREP_LOG"] for task in tasks} == {"json"}


def test_paths_and_pool_are_those_of_the_environment_and_a_failure_is_one_line(tmp_path: Path) -> None:
    found = loaded(tmp_path, USERREP_BIN="/opt/my env/userrep", USERREP_CONFIG="/etc/userrep.yaml", USERREP_POOL="ml")
    tasks = [task for dag in found["dags"].values() for task in dag["tasks"]]
    assert {task["pool"] for task in tasks} == {"ml"}
    assert {shlex.split(task["command"])[1] for task in tasks} == {"/opt/my env/userrep"}
    assert {shlex.split(task["command"])[-1] for task in tasks} == {"/etc/userrep.yaml"}
    assert found["logged"] == ["userrep: d.t failed: one line and another"] * len(tasks)

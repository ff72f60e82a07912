"""The bundle for Databricks: Databricks' own models know every field, and userrep's command line takes every task."""

from importlib.metadata import entry_points, metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import ClusterSpec, Job, Task
from packaging.requirements import Requirement

from tests.support.command_line import configuration_of
from userrep.cli import main as cli

pytestmark = pytest.mark.full

BUNDLE = Path(__file__).parents[2] / "deploy" / "databricks"
SETTINGS = yaml.safe_load((BUNDLE / "databricks.yml").read_text())
VARIABLES = SETTINGS["variables"]
FILES = sorted(path for pattern in SETTINGS["include"] for path in BUNDLE.glob(pattern))
WRITTEN = {
    key: job
    for path in FILES
    for key, job in yaml.safe_load(path.read_text())["resources"]["jobs"].items()
}  # fmt: skip
ON_THE_PLATFORM = {
    "${var.runtime}": "19.x", "${var.gpu_runtime}": "19.x-gpu-ml", "${workspace.current_user.userName}": "ada",
    "${workspace.file_path}/deploy/databricks": str(BUNDLE), "{{job.run_id}}": "4711",
    "{{job.parameters.as_of}}": "2024-06-02",
}  # fmt: skip


def resolved(value: Any) -> Any:
    """Put in what the command line of Databricks and a run would: defaults of variables, and references."""
    if isinstance(value, dict):
        return {key: resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [resolved(part) for part in value]
    for name, variable in VARIABLES.items():
        if value == f"${{var.{name}}}" and "default" in variable:
            return resolved(variable["default"])
        if isinstance(value, str) and "default" in variable:
            value = value.replace(f"${{var.{name}}}", str(variable["default"]))
    for reference, found in ON_THE_PLATFORM.items():
        value = value.replace(reference, found) if isinstance(value, str) else value
    return value


JOBS = {key: Job.from_dict(resolved(job)) for key, job in WRITTEN.items()}
TASKS = [pytest.param(job, task, id=f"{key}.{task.task_key}") for key, job in JOBS.items() for task in job.tasks]


def order(job: Job) -> list[str]:
    """Return the tasks in an order in which each follows what it depends on, as they are written."""
    done: list[str] = []
    for task in job.tasks:
        assert {of.task_key for of in task.depends_on} <= set(done), task.task_key
        done.append(task.task_key)
    return done


def test_databricks_own_models_know_every_field_before_and_after_variables_are_put_in() -> None:
    assert set(JOBS) == {"userrep_nightly", "userrep_weekly", "userrep_retraining"}
    for job in WRITTEN.values():
        Job.from_dict(job)
    ClusterSpec.from_dict(resolved(VARIABLES["cluster"]["default"]))
    with pytest.raises(ValueError, match="Unexpected field 'task_kee'"):
        Job.from_dict(WRITTEN["userrep_weekly"] | {"tasks": [{"task_kee": "x"}]})


def test_only_values_of_the_platform_are_left_to_fill_in() -> None:
    for job in WRITTEN.values():
        left = str(resolved({key: part for key, part in job.items() if key != "parameters"}))
        assert "${" not in left
        assert "{{" not in left


def test_tasks_follow_each_other_in_the_right_order() -> None:
    assert order(JOBS["userrep_nightly"]) == ["build_activity_tiles", "daily", "monitor_drift", "forget_users"]
    assert order(JOBS["userrep_weekly"]) == ["maintain_tables"]
    retraining = order(JOBS["userrep_retraining"])
    assert retraining == [
        "build_activity_tiles", "train_item_vectors", "build_user_features", "train_autoencoder", "embed_users",
        "publish_snapshot",
    ]  # fmt: skip
    chain = {task.task_key: [of.task_key for of in task.depends_on] for task in JOBS["userrep_retraining"].tasks}
    assert chain == dict(zip(retraining, [[], *([key] for key in retraining)], strict=False))
    nightly = {task.task_key: task for task in JOBS["userrep_nightly"].tasks}
    assert nightly["monitor_drift"].run_if is None
    assert nightly["forget_users"].run_if is not None
    assert nightly["forget_users"].run_if.value == "ALL_DONE"


@pytest.mark.parametrize(("job", "task"), TASKS)
def test_every_task_is_a_command_that_userrep_takes_under_the_run_s_id(
    job: Job, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    wheel = task.python_wheel_task
    assert (wheel.package_name, wheel.entry_point) == ("userrep", "userrep")
    config, run_ids = configuration_of(wheel.parameters, monkeypatch)
    assert run_ids == [None, "databricks-4711"]
    assert (config.catalog, config.schema_, config.root) == ("main", "userrep", None)


@pytest.mark.parametrize(("job", "task"), TASKS)
def test_every_task_is_tried_again_on_a_cluster_of_its_job_with_the_wheel(job: Job, task: Task) -> None:
    assert task.max_retries >= 2
    assert task.min_retry_interval_millis >= 5 * 60_000
    assert task.job_cluster_key in {cluster.job_cluster_key for cluster in job.job_clusters}
    assert job.max_concurrent_runs == 1
    assert "../../../dist/*.whl" in [library.whl for library in task.libraries]
    assert str(BUNDLE / "requirements.txt") in [library.requirements for library in task.libraries]


def test_tasks_install_the_extras_that_the_runtime_lacks() -> None:
    lines = (BUNDLE / "requirements.txt").read_text().splitlines()
    wanted = {
        str(requirement).partition(";")[0]
        for text in metadata("userrep").get_all("Requires-Dist") or []
        if (requirement := Requirement(text)).marker and requirement.name not in ("pyspark", "delta-spark", "torch")
        and any(requirement.marker.evaluate({"extra": extra}) for extra in ("spark", "train"))
    }  # fmt: skip
    listed = {str(Requirement(line)) for line in lines if not line.startswith("#")}
    assert listed == {str(Requirement(text)) for text in wanted}


def test_only_the_training_has_gpus_dedicated_access_and_horovod() -> None:
    clusters = {
        (job.name, cluster.job_cluster_key): cluster.new_cluster
        for job in JOBS.values() for cluster in job.job_clusters
    }  # fmt: skip
    training = clusters.pop(("userrep retraining", "training"))
    assert training.data_security_mode.value == "DATA_SECURITY_MODE_DEDICATED"
    assert (training.single_user_name, training.num_workers) == ("ada", VARIABLES["ranks"]["default"])
    assert {cluster.data_security_mode.value for cluster in clusters.values()} == {"DATA_SECURITY_MODE_STANDARD"}
    assert not [key for cluster in clusters.values() for key in cluster.spark_conf if "executorEnv" in key]
    users = {task.task_key for job in JOBS.values() for task in job.tasks if task.job_cluster_key == "training"}
    horovod = {task.task_key for job in JOBS.values() for task in job.tasks if len(task.libraries) > 2}
    assert users == horovod == {"train_autoencoder"}


def test_the_wheel_is_built_of_this_repository_and_has_the_command_as_an_entry_point() -> None:
    artifact = SETTINGS["artifacts"]["default"]
    assert (BUNDLE / artifact["path"] / "setup.py").is_file()
    assert (artifact["type"], "--wheel-dir dist" in artifact["build"]) == ("whl", True)
    (command,) = entry_points(group="console_scripts", name="userrep")
    assert command.load() is cli.main
    assert set(SETTINGS["targets"]) == {"dev", "prod"}

"""Every job on the cluster, under spark-submit and from the command line; and a Worker that does not come up."""

import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.standalone_cluster import StandaloneCluster
from tests.system.cluster.conftest import ConfigFile, Submit
from userrep.cli.pipeline import JOB_NAMES
from userrep.errors import UserrepError

pytestmark = pytest.mark.full

AS_OF = "2024-01-29"
SMALL: dict[str, Any] = {
    "onboarding": None,
    "windows_days": [3, 7],
    "item_vectors": {"behaviour": {"kind": "als", "dim": 4, "iterations": 1, "refit_days": 7}},
    "model": {"latent_dim": 16},
    "training": {
        "backend": "horovod", "num_workers": 2, "num_shards": 2, "batch_size": 64, "max_epochs": 1,
        "as_ofs": {"until": "2024-01-23", "max_dates": 1},
    },
    "snapshots": {"history_dates": 2},
    "evaluation": {"horizons_days": [2]},
}  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, submit: Submit, config_file: ConfigFile) -> Path:
    """Generate a log and run every job on it, with a configuration that says nothing of a master."""
    log = tmp_path_factory.mktemp("log")
    driver = submit(Path(__file__).with_name("run_jobs.py"), log, config_file(log, log, **SMALL, spark={}), AS_OF)
    assert driver.wait(300) == 0, driver.said()
    return log


def test_under_spark_submit_jobs_run_on_the_submitted_cluster(log: Path, cluster: StandaloneCluster) -> None:
    assert {"name": "generate_events", "cores": 2} in [
        {"name": app["name"], "cores": app["cores"]} for app in cluster.state()["completedapps"]
    ]


def test_the_pipeline_on_the_cluster_finds_every_job_up_to_date_and_a_space_serves(
    log: Path, cluster: StandaloneCluster, config_file: ConfigFile
) -> None:
    config = config_file(log, log, **SMALL)
    pipeline = cluster.run(sys.executable, "-m", "userrep.cli", "pipeline", "--config", config, "--as-of", AS_OF)
    assert pipeline.wait(300) == 0, pipeline.said()
    stages = [
        job for job in JOB_NAMES if job not in ("monitor_drift", "maintain_tables", "train_return_propensity")
    ]  # these are not stages of the pipeline
    assert [job for job in stages if f" {job}: up to date (" not in pipeline.said()] == []
    assert "serving space: s001-" in pipeline.said()


def test_a_worker_that_does_not_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(UserrepError, match=r"cluster: Worker 0 ended at its start; its log .*worker-0.log ends with"),
        StandaloneCluster(tmp_path, num_workers=1, memory="much"),
    ):
        pass

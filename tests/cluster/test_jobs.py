"""On a real cluster: every job by spark-submit, the pipeline after it, and the cluster itself."""

import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.standalone_cluster import StandaloneCluster
from tests.cluster.conftest import ConfigFile, Submit
from userrep.errors import UserrepError
from userrep.jobs import JOBS

SCRIPTS = Path(__file__).parent
AS_OF = "2024-01-29"
SMALL: dict[str, Any] = {
    "windows_days": [3, 7],
    "item_vectors": {"behaviour": {"kind": "als", "dim": 4, "iterations": 1}, "content": {"kind": "text", "dim": 4}},
    "model": {"latent_dim": 6, "hidden_dim": 16, "decoder_dim": 8},
    "training": {
        "backend": "horovod", "num_workers": 2, "num_shards": 2, "batch_size": 64, "max_epochs": 1,
        "as_ofs": {"until": "2024-01-16", "max_dates": 1},
    },
    "downstream": {"num_dates": 1, "horizon_days": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, submit: Submit, config_file: ConfigFile) -> Path:
    """Generate a log, and run every job on it."""
    folder = tmp_path_factory.mktemp("built")
    generate = submit("jobs/generate_events.py", "--out", folder, "--users", 150, "--items", 50, "--days", 28)
    assert generate.wait() == 0, generate.said()
    config = config_file(folder, folder / "root", **SMALL, spark={})
    jobs = submit(SCRIPTS / "run_jobs.py", "--config", config, "--as-of", AS_OF)
    assert jobs.wait() == 0, jobs.said()
    return folder


def test_every_job_runs_by_spark_submit_where_its_master_says(built: Path, cluster: StandaloneCluster) -> None:
    ran = {app["name"]: app["cores"] for app in cluster.state()["completedapps"]}
    assert ran["generate_events"] == ran[next(iter(JOBS))] == 2


def test_the_pipeline_on_the_cluster_finds_all_of_it_up_to_date_and_a_space_serves(
    built: Path, cluster: StandaloneCluster, config_file: ConfigFile
) -> None:
    config = config_file(built, built / "root", **SMALL)
    pipeline = cluster.run(sys.executable, "-m", "userrep.cli", "pipeline", "--config", config, "--as-of", AS_OF)
    assert pipeline.wait() == 0, pipeline.said()
    assert [job for job in JOBS if f" {job}: up to date (" not in pipeline.said()] == []
    assert "serving space: s001-" in pipeline.said()


def test_a_killed_worker_can_be_started_again(cluster: StandaloneCluster) -> None:
    gone = cluster.workers[1].pid
    cluster.kill_worker(1)
    cluster.start_worker(1)
    assert cluster.workers[1].pid != gone
    alive = [worker for worker in cluster.state()["workers"] if worker["state"] == "ALIVE"]
    assert sorted(worker["resources"]["gpu"]["addresses"] for worker in alive) == [["0"], ["1"]]


def test_a_worker_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(UserrepError, match=r"cluster: Worker 0 ended at its start; its log .*worker-0.log ends with"),
        StandaloneCluster(tmp_path, num_workers=1, memory="much"),
    ):
        pass

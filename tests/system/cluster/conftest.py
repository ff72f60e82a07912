"""A standalone cluster of two Workers, each with one core and one declared GPU; drivers run next to the tests."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.standalone_cluster import REPOSITORY, Driver, StandaloneCluster
from tests.support.builders import SPARK, pipeline_config
from userrep.spark.session import jars_folder

PROPERTIES = REPOSITORY / "conf" / "spark" / "standalone.conf"
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # these JVMs live too short for better code to pay
# What is other than in conf/spark/standalone.conf: small, no downloads, and this repository is not installed.
SETTINGS = SPARK | {
    "spark.cores.max": "2",
    "spark.executor.cores": "1",
    "spark.executor.memory": "1g",
    "spark.executor.extraJavaOptions": QUICK_START,
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": QUICK_START,
    "spark.executorEnv.PYTHONPATH": str(REPOSITORY),
    "spark.pyspark.python": sys.executable,
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
}
GPUS = {"spark.executor.resource.gpu.amount": "1", "spark.task.resource.gpu.amount": "1"}

Submit = Callable[..., Driver]
ConfigFile = Callable[..., Path]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneCluster]:
    """The cluster of all tests; who kills a Worker starts it again."""
    with StandaloneCluster(tmp_path_factory.mktemp("cluster"), num_workers=2, cores=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def submit(cluster: StandaloneCluster) -> Submit:
    """Start a script on the cluster: ``submit(script, *arguments, **{"spark.key": "value"})``."""
    return partial(submit_to, cluster)


def submit_to(cluster: StandaloneCluster, script: Path | str, *arguments: object, **conf: str) -> Driver:
    """Start a script on a cluster."""
    return cluster.submit(script, *arguments, properties=PROPERTIES, conf=SETTINGS | local_jars() | conf)


def local_jars() -> dict[str, str]:
    """Return the settings for a submission with the JARs of this machine, which downloads none."""
    return {"spark.jars": ",".join(map(str, sorted(jars_folder().glob("*.jar")))), "spark.jars.packages": ""}


@pytest.fixture(scope="session")
def config_file(cluster: StandaloneCluster) -> ConfigFile:
    """Write the configuration of a pipeline: ``config_file(log, root, **sections)``.

    A session that the command line starts is on the cluster; spark-submit says by itself where its is.
    """

    def config_file(log: Path, root: Path, **sections: Any) -> Path:
        on_cluster = {"spark": {"master": cluster.master_url, "conf": SETTINGS | GPUS}}
        config = pipeline_config(log, root, **on_cluster | sections)
        root.mkdir(parents=True, exist_ok=True)
        path = root / "userrep.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
        return path

    return config_file

"""Every job on YARN in cluster mode, with conf/spark/yarn.conf and an environment shipped as an archive."""

import subprocess
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path

import py4j
import pytest
import yaml
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

import userrep
from deploy.fetch_jars import YARN_PACKAGES
from deploy.standalone_cluster import REPOSITORY, SPARK_HOME, without_spark_settings
from tests.support.builders import pipeline_config
from tests.system.cluster.conftest import SETTINGS, local_jars
from tests.system.cluster.run_jobs import FORGOTTEN
from tests.system.cluster.test_jobs import AS_OF, SMALL
from userrep.cli.pipeline import JOB_NAMES
from userrep.spark.session import jars_folder

pytestmark = pytest.mark.full

YARN_JARS = jars_folder(YARN_PACKAGES)
# One NodeManager that declares two GPUs, which only a scheduler by all resources assigns.
YARN = {
    "fs.defaultFS": "file:///",
    "yarn.minicluster.yarn.nodemanager.resource.memory-mb": "8192",
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.9",
    "yarn.nodemanager.resource.cpu-vcores": "4",
    "yarn.nodemanager.resource-type.yarn.io/gpu": "2",
    "yarn.nodemanager.vmem-check-enabled": "false",
    "yarn.resource-types": "yarn.io/gpu",
    "yarn.scheduler.capacity.maximum-am-resource-percent": "0.5",
    "yarn.scheduler.capacity.resource-calculator": "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator",
    "yarn.scheduler.capacity.root.default.capacity": "100",
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.minimum-allocation-mb": "128",
}
# What is other than in conf/spark/yarn.conf: small, no downloads, no HDFS.
SMALL_CONTAINERS = {name: value for name, value in SETTINGS.items() if name != "spark.cores.max"} | {
    "spark.driver.memoryOverhead": "512m",
    "spark.executor.instances": "2",
    "spark.executor.memoryOverhead": "1g",
    "spark.executorEnv.GPU_ADDRESSES": "0",
}


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hadoop's MiniYARNCluster, a ResourceManager and a NodeManager in one JVM; the folder of its yarn-site.xml."""
    if not YARN_JARS.is_dir():
        pytest.skip("the JARs of YARN are missing; `python -m deploy.fetch_jars yarn` downloads them")
    folder = tmp_path_factory.mktemp("yarn")
    (folder / "log4j.properties").write_text("log4j.rootLogger=OFF\n")
    options = ["-Xmx512m", f"-Dtest.build.data={folder}", f"-Dlog4j.configuration=file:{folder}/log4j.properties"]
    port, token = launch_gateway(
        jarpath=str(next((SPARK_HOME / "jars").glob("py4j-*.jar"))),
        classpath=f"{YARN_JARS}/*",
        javaopts=options,
        die_on_exit=True,
        enable_auth=True,
        cwd=str(folder),
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
    hadoop = gateway.jvm.org.apache.hadoop.yarn
    conf = hadoop.conf.YarnConfiguration()
    for name, value in YARN.items():
        conf.set(name, value)
    cluster = hadoop.server.MiniYARNCluster("userrep", 1, 1, 1)
    try:
        cluster.init(conf)
        cluster.start()
        cluster.getConfig().writeXml(gateway.jvm.java.io.FileOutputStream(str(folder / "yarn-site.xml")))
        yield folder
    finally:
        cluster.stop()
        gateway.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as venv-pack makes them, except that it links this one's packages instead of copying them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "environment", symlinks=True)
    packages = next((folder / "environment").glob("lib/python*/site-packages"))
    linked = [Path(py4j.__file__).parents[1], REPOSITORY, REPOSITORY / "examples"]
    (packages / "linked.pth").write_text("".join(f"{path}\n" for path in linked))
    with tarfile.open(folder / "userrep.tar.gz", "w:gz") as archive:
        archive.add(folder / "environment", arcname=".")
    return folder / "userrep.tar.gz"


def submit(yarn: Path, archive: Path, files: Path, script: Path, *arguments: object) -> str:
    """Run a script as docs/how-to/cluster.md says; return the driver's output. Fails if the application fails."""
    conf = (
        SMALL_CONTAINERS
        | local_jars()
        | {
            "spark.archives": f"{archive}#environment",
            "spark.files": f"{files},deploy/gpu_addresses.sh",
            "spark.pyspark.python": "./environment/bin/python",
            "spark.yarn.stagingDir": f"file://{yarn}/staging",
        }
    )
    settings = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    command = [SPARK_HOME / "bin" / "spark-submit", "--properties-file", "conf/spark/yarn.conf", *settings, script]
    done = subprocess.run(
        [str(word) for word in (*command, *arguments)],
        cwd=REPOSITORY,
        env=without_spark_settings()
        | {"SPARK_HOME": str(SPARK_HOME), "YARN_CONF_DIR": str(yarn), "SPARK_LOCAL_IP": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    logs = sorted(yarn.rglob("container_*_000001/stdout"))  # in the order of the applications
    said = logs[-1].read_text() if logs else ""
    assert done.returncode == 0, "\n".join([*done.stdout.splitlines()[-10:], *said.splitlines()[-40:]])
    return said


@pytest.fixture(scope="module")
def root(yarn: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a log and run every job on it."""
    root = tmp_path_factory.mktemp("root")
    config = pipeline_config(root, root, **SMALL, spark={})
    file = root / "userrep.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    script = Path(__file__).with_name("run_jobs.py")
    said = submit(yarn, archive, file, script, root, "userrep.yaml", AS_OF)
    assert [job for job in JOB_NAMES if f"{job}: " not in said] == []
    return root


def test_every_job_runs_in_containers(yarn: Path, root: Path) -> None:
    assert len(list(yarn.rglob("application_*_0001/container_*/stderr"))) == 3  # a driver and two executors
    opened = userrep.open(str(root))
    assert [space.state for space in opened.spaces()] == ["serving"]
    assert (root / "evaluation" / "metrics.json").is_file()
    assert list(opened.lookup([FORGOTTEN, "u0000002"])["embedding_status"]) == ["not_in_snapshot", "found"]


def test_a_job_runs_as_the_documentation_submits_it(yarn: Path, archive: Path, root: Path) -> None:
    job = Path("jobs") / "train_autoencoder.py"
    said = submit(yarn, archive, root / "userrep.yaml", job, "--config", "userrep.yaml", "--as-of", AS_OF)
    assert "requested; space s002-" in said
    assert [space.state for space in userrep.open(str(root)).spaces()] == ["serving", "candidate"]


def test_a_job_that_refuses_its_arguments_fails_the_application(yarn: Path, archive: Path, root: Path) -> None:
    job = Path("jobs") / "train_autoencoder.py"
    with pytest.raises(AssertionError, match="userrep: --as-of someday: not a date"):
        submit(yarn, archive, root / "userrep.yaml", job, "--config", "userrep.yaml", "--as-of", "someday")

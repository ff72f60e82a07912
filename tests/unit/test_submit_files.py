"""What conf/spark/ and the training of the bundle hold: settings that Spark can read, and all that Horovod needs."""

import re
from pathlib import Path

import pytest
import yaml

from userrep.spark.session import PACKAGES, REDACTED, S3_EXCLUDES, S3_PACKAGES

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[2]
SECURE = ROOT / "conf" / "spark" / "secure.conf"  # used in addition to one of the others
FILES = sorted({*(ROOT / "conf" / "spark").glob("*.conf")} - {SECURE})
DATABRICKS = yaml.safe_load((ROOT / "deploy" / "databricks" / "resources" / "retraining.job.yml").read_text())
DATABRICKS_CLUSTER = DATABRICKS["resources"]["jobs"]["userrep_retraining"]["job_clusters"][1]["new_cluster"]


def settings_of(path: Path) -> dict[str, str]:
    """Read a properties file as spark-submit does: a key, white space, and the rest of the line, without escapes."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), path.name
    assert len({key for key, _ in pairs}) == len(pairs), f"{path.name}: a key stands twice"
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in pairs}


SETTINGS = [settings_of(path) for path in FILES] + [DATABRICKS_CLUSTER["spark_conf"]]
NAMES = [path.stem for path in FILES] + ["databricks"]


def test_there_is_a_file_for_each_kind_of_cluster() -> None:
    assert set(NAMES) == {"standalone", "yarn", "kubernetes", "databricks"}


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_every_key_is_spark_s_and_every_value_a_text(settings: dict[str, str]) -> None:
    assert [key for key, value in settings.items() if not key.startswith("spark.") or not isinstance(value, str)] == []


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_sessions_and_python_workers_run_in_utc_and_each_rank_has_a_gpu(settings: dict[str, str]) -> None:
    wanted = {
        "spark.sql.session.timeZone": "UTC",
        "spark.executorEnv.TZ": "UTC",
        "spark.databricks.delta.commit.idempotencyCheck.enabled": "true",
        "spark.task.resource.gpu.amount": "1",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.speculation": "false",
    }
    assert {key: settings.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_spark_submit_brings_delta_and_keeps_the_executors(path: Path) -> None:
    settings = settings_of(path)
    wanted = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.executor.resource.gpu.amount": "1",
        "spark.dynamicAllocation.enabled": "false",
    }
    assert {key: settings.get(key) for key in wanted} == wanted
    assert f"{PACKAGES},{S3_PACKAGES}" in path.read_text()
    assert f" {S3_EXCLUDES}\n" in path.read_text()
    assert "spark.pyspark.python" in settings


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_switches_for_security_are_listed_for_each_kind_of_cluster(path: Path) -> None:
    secure = settings_of(SECURE)
    assert not secure.keys() & settings_of(path).keys()
    assert secure["spark.redaction.regex"] == REDACTED
    assert {secure[f"spark.{key}"] for key in ("authenticate", "network.crypto.enabled", "io.encryption.enabled")} == {
        "true"
    }

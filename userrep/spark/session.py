"""One way to a Spark session that has Delta and reads Kafka, runs in UTC, and is quiet."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from userrep.config.variables import on_databricks
from userrep.errors import UsageError
from userrep.spark.quiet import filtered_stderr, silence_query_logger

DELTA_COORDINATES = "io.delta:delta-spark_4.2_2.13:4.4.0"
KAFKA_COORDINATES = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"
PACKAGES = f"{DELTA_COORDINATES},{KAFKA_COORDINATES}"  # as spark.jars.packages takes them
# What Spark reads and writes s3a:// by. Of the AWS SDK, the three parts that it uses: all of it is 690 MB.
S3_PACKAGES = (
    "org.apache.hadoop:hadoop-aws:3.5.0,software.amazon.awssdk:s3:2.35.4,"
    "software.amazon.awssdk:s3-transfer-manager:2.35.4,software.amazon.awssdk:sts:2.35.4"
)
S3_EXCLUDES = "software.amazon.awssdk:bundle"  # as spark.jars.excludes takes them

# Settings, by name or value, that neither the event log nor the UI shows: Spark's own, Kafka's log-in, and passwords in
# addresses.
REDACTED = r"(?i)secret|password|passwd|token|access[.]?key|credential|sasl[.]jaas|://[^/@\s]+@"
_JVM_OPTIONS = "spark.driver.extraJavaOptions"
_CORES = os.cpu_count() or 2
_LOCAL = {
    "spark.driver.memory": "4g",
    "spark.sql.shuffle.partitions": str(_CORES),
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(4 * _CORES),  # else a task for each file to list
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ALWAYS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.TZ": "UTC",  # as this process: Python workers turn timestamps into Python's by it
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.maxConcurrentOutputFileWriters": "32",  # below that, rows need no sort before a partitioned write
    "spark.hadoop.parquet.block.size": str(32 * 2**20),  # what each of them may hold back
    "spark.hadoop.parquet.enable.dictionary#embedding.list.element": "false",  # a third of the time to write vectors
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.databricks.delta.commit.idempotencyCheck.enabled": "true",
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.redaction.regex": REDACTED,
}


def jars_folder(packages: str = PACKAGES) -> Path:
    """Return the folder of these versions' JARs, in ``USERREP_JARS`` (default: in the user's cache).

    Its name tells the versions of all packages: what was resolved for others is not taken for them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parent = Path(os.environ.get("USERREP_JARS") or cache / "userrep" / "jars")
    return parent / packages.replace(":", "_").replace(",", "_")


def get_session(
    master: str | None = None, conf: Mapping[str, str] | None = None, *, app_name: str = "userrep"
) -> SparkSession:
    """Return the active session (a notebook's, spark-submit's), or start one with Delta and Spark's source of Kafka.

    Sessions run in UTC, whatever they were started with. ``master`` and ``conf`` hold for a session that is started
    here; of an active one only the runtime settings can change. Under spark-submit a local ``master`` gives way to
    that of the submit, and so do JARs and sizes. Cost: seconds where a JVM must start.

    Raises
    ------
    UsageError
        If Spark does not start, or an active session has no Delta.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    silence_query_logger()
    os.environ["TZ"] = "UTC"  # PySpark turns timestamps into Python's by the process's zone
    time.tzset()
    session = SparkSession.getActiveSession()
    if session is None:
        session = _start(master, dict(conf or {}), app_name)
    else:
        for key, value in (conf or {}).items():
            if session.conf.isModifiable(key):
                session.conf.set(key, value)
    if not _has_delta(session):
        raise UsageError(
            f"the Spark session has no Delta. Start it with the package {DELTA_COORDINATES} (spark-submit --packages) "
            "and, in a notebook, spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension and "
            "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog."
        )
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.conf.set("spark.sql.maxConcurrentOutputFileWriters", _ALWAYS["spark.sql.maxConcurrentOutputFileWriters"])
    return session


def _has_delta(session: SparkSession) -> bool:
    """Say whether Delta is configured and its classes are there; the catalog is loaded when it is first asked.

    Databricks' sessions have it without being told.
    """
    if on_databricks():
        return True
    if "DeltaSparkSessionExtension" not in (session.conf.get("spark.sql.extensions", "") or ""):
        return False
    try:
        session.catalog.currentDatabase()
    except Exception:  # Py4J's and Spark's kinds, by platform; all say that a class is missing
        return False
    return True


def _start(master: str | None, conf: dict[str, str], app_name: str) -> SparkSession:
    settings = _ALWAYS | conf
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started the JVM, and said where and with which JARs
        master = None if (master or "local").startswith("local") else master
    else:
        settings = _own_jvm(master) | settings
        settings[_JVM_OPTIONS] = f"{_quiet(conf)} {conf.get(_JVM_OPTIONS, '')}".strip()
    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        with filtered_stderr():
            return builder.getOrCreate()
    except Exception as error:  # a JVM that does not start has many faces; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"Spark did not start ({reason[:300]}). `userrep doctor` checks Java, Spark and Delta."
        ) from error


def _own_jvm(master: str | None) -> dict[str, str]:
    """Return what the JVM needs that a session starts by itself: JARs, a local session's size."""
    settings = dict(_LOCAL) if master is None or master.startswith("local") else {}
    jars = sorted(jars_folder().glob("*.jar"))
    if jars:
        jars += sorted(jars_folder(S3_PACKAGES).glob("*.jar"))
        settings["spark.jars"] = ",".join(map(str, jars))
    else:
        settings["spark.jars.packages"] = PACKAGES
    return settings


def _quiet(conf: Mapping[str, str]) -> str:
    """Return the JVM's option for quiet logs; a file that ``conf`` names by an option of its own wins."""
    if "spark.log.structuredLogging.enabled" in conf:
        return ""
    return f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}"


def shuffle_partitions(spark: SparkSession) -> int:
    """Return how many tasks the session gives a shuffle."""
    wanted = spark.conf.get("spark.sql.shuffle.partitions", "200") or ""
    return int(wanted) if wanted.isdigit() else 200  # Databricks has "auto"

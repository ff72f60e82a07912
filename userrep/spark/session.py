"""The Spark session: with Delta and the Kafka source, in UTC, and with quiet logs."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pyspark import SparkContext
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

from userrep.config.environment import on_databricks, under_submit
from userrep.errors import UsageError, first_line
from userrep.spark.class_archive import archive_options
from userrep.spark.quiet import filtered_stderr, silence_query_logger
from userrep.spark.releases import RELEASE

DELTA_COORDINATES = RELEASE.delta
KAFKA_COORDINATES = f"org.apache.spark:spark-sql-kafka-0-10_2.13:{RELEASE.kafka}"
PACKAGES = f"{DELTA_COORDINATES},{KAFKA_COORDINATES}"  # for spark.jars.packages
# For s3a:// paths. Only the three parts of the AWS SDK that Spark uses, because the whole SDK is 690 MB.
S3_PACKAGES = (
    f"org.apache.hadoop:hadoop-aws:{RELEASE.hadoop},software.amazon.awssdk:s3:{RELEASE.aws_sdk},"
    f"software.amazon.awssdk:s3-transfer-manager:{RELEASE.aws_sdk},software.amazon.awssdk:sts:{RELEASE.aws_sdk}"
)
S3_EXCLUDES = "software.amazon.awssdk:bundle"  # for spark.jars.excludes

# Settings, by name or value, that the event log and the UI redact: Spark's defaults, Kafka credentials, and passwords
# in URLs.
REDACTED = r"(?i)secret|password|passwd|token|access[.]?key|credential|sasl[.]jaas|://[^/@\s]+@"
_JVM_OPTIONS, _CLASS_PATH = "spark.driver.extraJavaOptions", "spark.driver.extraClassPath"
# No limit on the bytes of an Arrow batch, only on its rows: with a limit, Spark 4.1 and later compute the size of the
# whole batch after each row, which takes longer than all else for rows with nested lists.
_BATCH_BYTES = {"spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1)}
_VECTOR_DICTIONARY = "parquet.enable.dictionary#embedding.list.element"
_VERSION = re.compile(r"-\d.*")  # of a JAR; the names of resolved ones start with their group and an underscore
_CORES = os.cpu_count() or 2
_LOCAL = {
    "spark.driver.memory": "4g",
    "spark.sql.shuffle.partitions": str(_CORES),
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(4 * _CORES),  # by default, one task per file
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.python.daemon.module": "userrep.spark.worker_daemon",
}
_ALWAYS = _BATCH_BYTES | {
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.TZ": "UTC",  # as in this process: Python workers convert timestamps in this zone
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.maxConcurrentOutputFileWriters": "32",  # up to this number, a partitioned write needs no sort
    "spark.hadoop.parquet.block.size": str(32 * 2**20),  # memory of each concurrent writer
    f"spark.hadoop.{_VECTOR_DICTIONARY}": "false",  # vectors take a third of the write time
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.databricks.delta.commit.idempotencyCheck.enabled": "true",
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.redaction.regex": REDACTED,
    # Lower-case letters as in Java. ICU's tables of all letters take 2 s to build in each JVM that lowers a text.
    "spark.sql.icu.caseMappings.enabled": "false",
}


def jars_folder(packages: str = PACKAGES) -> Path:
    """Return the folder of the JARs of these packages, below ``USERREP_JARS`` (default: the user's cache).

    Its name contains all versions, so that JARs resolved for other versions are not used.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parent = Path(os.environ.get("USERREP_JARS") or cache / "userrep" / "jars")
    return parent / packages.replace(":", "_").replace(",", "_")


@contextmanager
def vector_dictionaries(spark: SparkSession, *, used: bool) -> Iterator[None]:
    """Let Parquet files that Spark writes in this block have dictionaries of vectors, which need them if rounded."""
    spark.conf.set(_VECTOR_DICTIONARY, str(used).lower())
    try:
        yield
    finally:
        spark.conf.unset(_VECTOR_DICTIONARY)


def get_session(
    master: str | None = None, conf: Mapping[str, str] | None = None, *, app_name: str = "userrep"
) -> SparkSession:
    """Return the active session (of a notebook or spark-submit), or start one with Delta and the Kafka source.

    The session and this process are set to UTC. ``master`` and ``conf`` apply to a session that is started here; in an
    active session, only runtime settings of ``conf`` apply. Under spark-submit, a local ``master``, JARs and sizes
    of the submit take precedence. Cost: seconds if a JVM must start.

    Raises
    ------
    UsageError
        If Spark does not start, or an active session has no Delta.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    silence_query_logger()
    os.environ["TZ"] = "UTC"  # PySpark converts timestamps in the zone of the process
    time.tzset()
    session = SparkSession.getActiveSession()
    if session is None:
        session = _start(master, dict(conf or {}), app_name)
    else:
        for key, value in (conf or {}).items():
            if session.conf.isModifiable(key):
                session.conf.set(key, value)
    check_delta(session)
    session.conf.set("spark.sql.session.timeZone", "UTC")
    for key in ("spark.sql.maxConcurrentOutputFileWriters", *_BATCH_BYTES):
        if key not in (conf or {}):
            session.conf.set(key, _ALWAYS[key])
    return session


def check_delta(session: SparkSession) -> None:
    """Raise UsageError if a session has no Delta, or cannot load its classes. Databricks sessions always have it."""
    if on_databricks():
        return
    with suppress(Exception):  # exceptions of Py4J or Spark, depending on the platform, for a missing class
        if "DeltaSparkSessionExtension" in (session.conf.get("spark.sql.extensions", "") or ""):
            session.catalog.currentDatabase()  # the catalog's classes are loaded at its first use
            return
    raise UsageError(
        f"the Spark session has no Delta. Start it with the package {DELTA_COORDINATES} (spark-submit --packages) "
        "and, in a notebook, spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension and "
        "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog."
    )


def _start(master: str | None, conf: dict[str, str], app_name: str) -> SparkSession:
    settings = _ALWAYS | conf
    if under_submit():
        master = None if (master or "local").startswith("local") else master
    else:
        own = _own_jvm(master, conf)
        settings = own | settings | {key: own[key] for key in (_CLASS_PATH, _JVM_OPTIONS) if key in own}
    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        with filtered_stderr():
            return builder.getOrCreate()
    except Exception as error:  # a JVM fails to start with many kinds of exceptions
        raise UsageError(
            f"Spark did not start ({first_line(error)}). `userrep doctor` checks Java, Spark and Delta."
        ) from error


def _own_jvm(master: str | None, conf: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a JVM that this process starts: JARs, options, and sizes of a local session.

    The class path and the JVM options include those of ``conf``.
    """
    is_local = master is None or master.startswith("local")
    settings, options = dict(_LOCAL) if is_local else {}, [conf.get(_JVM_OPTIONS, "")]
    if "spark.log.structuredLogging.enabled" not in conf:
        options.insert(0, f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}")
    jars, more_jars = _jars(jars_folder()), _jars(jars_folder(S3_PACKAGES))
    if not jars:
        settings["spark.jars.packages"] = PACKAGES
    elif is_local and not (master or "").startswith("local-cluster") and SparkContext._gateway is None:
        # Unlike spark.jars, the class path copies no JAR. It has no effect on a JVM that runs already.
        settings[_CLASS_PATH] = os.pathsep.join([*jars, *filter(None, [conf.get(_CLASS_PATH)])])
        options.append(archive_options(settings[_CLASS_PATH]))
        jars = []
    if jars or more_jars:
        settings["spark.jars"] = ",".join([*jars, *more_jars])
    return settings | {_JVM_OPTIONS: " ".join(filter(None, options))}


def class_path() -> str:
    """Return the extra class path of local sessions: Delta and the Kafka source; empty if they are not resolved yet."""
    return os.pathsep.join(_jars(jars_folder()))


def _jars(folder: Path) -> list[str]:
    """Return the JARs in a folder of resolved packages, without those that Spark has in a version of its own."""
    own = {_VERSION.sub("", jar.name) for jar in Path(_find_spark_home(), "jars").glob("*.jar")}
    return [str(jar) for jar in sorted(folder.glob("*.jar")) if _VERSION.sub("", jar.name.partition("_")[2]) not in own]


def shuffle_partitions(spark: SparkSession) -> int:
    """Return the number of shuffle partitions of the session."""
    setting = spark.conf.get("spark.sql.shuffle.partitions", "200") or ""
    return int(setting) if setting.isdigit() else 200  # "auto" on Databricks

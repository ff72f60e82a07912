"""Download JARs from Maven Central once.

    python -m deploy.fetch_jars sessions s3    Delta and the Kafka connector, for every session, and S3 for Spark
    python -m deploy.fetch_jars broker         the Kafka broker that tests start
    python -m deploy.fetch_jars yarn           the YARN cluster that tests start

Groups that are in the cache already are skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from userrep.spark.session import PACKAGES, S3_EXCLUDES, S3_PACKAGES, jars_folder

# With a binding for its log. Spark's Scala library is used, since Spark's resolution leaves that library out.
BROKER_PACKAGES = "org.apache.kafka:kafka_2.13:4.1.1,org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
# Hadoop's own cluster for tests, and what its JAR uses but does not declare.
YARN_PACKAGES = (
    "org.apache.hadoop:hadoop-client-minicluster:3.5.0,org.bouncycastle:bcpkix-jdk18on:1.78.1,"
    "org.junit.jupiter:junit-jupiter-api:5.13.3,org.slf4j:slf4j-reload4j:1.7.36"
)

RESOLVE = """
import sys
from pyspark.sql import SparkSession
coordinates, excludes, ivy = sys.argv[1:]
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \
    .config("spark.jars.packages", coordinates).config("spark.jars.excludes", excludes) \
    .config("spark.jars.ivy", ivy).getOrCreate().stop()
"""


def broker_jars_folder() -> Path:
    """Return the folder of the broker's JARs, which must not be on the class path of a session."""
    return jars_folder(BROKER_PACKAGES)


def resolve(packages: str, folder: Path) -> bool:
    """Download the JARs of packages and their dependencies to a new folder. Return whether this succeeded."""
    print(f"setup: resolving {packages}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as ivy:
        resolved = subprocess.run(
            [sys.executable, "-c", RESOLVE, packages, S3_EXCLUDES, ivy], capture_output=True, text=True, check=False
        )
        jars = Path(ivy) / "jars"
        if resolved.returncode or not any(jars.glob("*.jar")):
            print(resolved.stderr[-4000:], file=sys.stderr)
            print(f"setup: {packages} could not be resolved; is Maven Central reachable?", file=sys.stderr)
            return False
        staged = Path(tempfile.mkdtemp(dir=folder.parent)) / "jars"
        shutil.copytree(jars, staged)
        os.replace(staged, folder)
        staged.parent.rmdir()
    return True


def main(names: Sequence[str]) -> int:
    """Download the missing JARs of these groups. Return the exit code."""
    packages = {"sessions": PACKAGES, "s3": S3_PACKAGES, "broker": BROKER_PACKAGES, "yarn": YARN_PACKAGES}
    for name in names:
        folder = jars_folder(packages[name])
        if not folder.is_dir() and not resolve(packages[name], folder):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

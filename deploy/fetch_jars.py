"""Resolve JARs from Maven Central once.

    python -m deploy.fetch_jars sessions     Delta and Kafka's connector, which every session has
    python -m deploy.fetch_jars s3 broker    Spark's access to S3, and the Kafka broker that tests start

A group that is in the cache already is left as it is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from userrep.spark.session import PACKAGES, S3_EXCLUDES, S3_PACKAGES, jars_folder

# With the binding that its log is written by. The broker's Scala library is Spark's: resolving leaves that out.
BROKER_PACKAGES = "org.apache.kafka:kafka_2.13:4.1.1,org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"

RESOLVE = """
import sys
from pyspark.sql import SparkSession
coordinates, excludes, ivy = sys.argv[1:]
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \
    .config("spark.jars.packages", coordinates).config("spark.jars.excludes", excludes) \
    .config("spark.jars.ivy", ivy).getOrCreate().stop()
"""


def broker_jars_folder() -> Path:
    """Return the folder of the broker's JARs. No session may have it on its class path."""
    return jars_folder(BROKER_PACKAGES)


def resolve(packages: str, folder: Path) -> bool:
    """Fetch the JARs of packages and of their dependencies into a new folder; return whether that worked."""
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
    """Resolve the JARs of these groups where they are missing; return the exit code."""
    wanted = {"sessions": PACKAGES, "s3": S3_PACKAGES, "broker": BROKER_PACKAGES}
    for name in names:
        folder = jars_folder(wanted[name])
        if not folder.is_dir() and not resolve(wanted[name], folder):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Resolve Delta's JARs from Maven Central once, into the folder that sessions load them from."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from userrep.session import DELTA_COORDINATES, jars_folder

RESOLVE = """
import sys
from pyspark.sql import SparkSession
coordinates, ivy = sys.argv[1:]
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \
    .config("spark.jars.packages", coordinates).config("spark.jars.ivy", ivy).getOrCreate().stop()
"""


def main() -> int:
    folder = jars_folder()
    if folder.is_dir():
        return 0
    print(f"setup: resolving {DELTA_COORDINATES}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as ivy:
        resolved = subprocess.run(
            [sys.executable, "-c", RESOLVE, DELTA_COORDINATES, ivy], capture_output=True, text=True, check=False
        )
        jars = Path(ivy) / "jars"
        if resolved.returncode or not any(jars.glob("*.jar")):
            print(resolved.stderr[-4000:], file=sys.stderr)
            print(f"setup: {DELTA_COORDINATES} could not be resolved; is Maven Central reachable?", file=sys.stderr)
            return 1
        staged = Path(tempfile.mkdtemp(dir=folder.parent)) / "jars"
        shutil.copytree(jars, staged)
        os.replace(staged, folder)
        staged.parent.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())

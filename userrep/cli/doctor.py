"""``userrep doctor``: checks that this machine can build representations."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyspark

from userrep.cli.check_result import CheckResult, checked
from userrep.config import Config
from userrep.config.environment import package_version
from userrep.spark.releases import SERIES, release_of
from userrep.spark.session import S3_PACKAGES, get_session, jars_folder
from userrep.store.open import artifacts_root
from userrep.store.write_access import check_writable

JAVA_VERSIONS = ("17", "21")


def doctor_checks(config: Config | None) -> Iterator[CheckResult]:
    """Yield the result of each check, quick ones first.

    ``config`` None: skip the check of the root, and that of Horovod if it is not installed.
    """
    yield CheckResult("python", True, platform.python_version())
    yield _java()
    yield _spark_and_delta()
    yield _jars(config)
    if find_spec("horovod") if config is None else config.training.backend == "horovod":
        yield from _horovod()
    if config is not None:
        yield checked("root", lambda: _writable(artifacts_root(config)))
    yield checked("spark with delta", lambda: _delta_works(config))


def _java() -> CheckResult:
    home = os.environ.get("JAVA_HOME")  # takes precedence over the PATH, as in Spark
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        state = f"not found in JAVA_HOME {home}" if home else "not found on the PATH"
        return CheckResult("java", False, state, "Install Java 17 (Debian: openjdk-17-jre-headless) and set JAVA_HOME.")
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', output)
    version = match[1] if match else "unknown"
    cure = f"Spark {SERIES} needs Java 17 or 21. Set JAVA_HOME to one."
    return CheckResult("java", version in JAVA_VERSIONS, version, cure)


def _spark_and_delta() -> CheckResult:
    spark, delta = pyspark.__version__, package_version("delta-spark") or "is not installed"
    series, release = release_of(spark)
    required_delta = release.delta.rpartition(":")[2]
    ok = spark.startswith(f"{series}.") and delta == required_delta
    cure = f"Install pyspark {series}.x with delta-spark {required_delta}."
    return CheckResult("spark and delta", ok, f"pyspark {spark}, delta-spark {delta}", cure)


def _jars(config: Config | None) -> CheckResult:
    jars = list(jars_folder().glob("*.jar"))
    if jars and config is not None and (config.root or "").startswith("s3") and not jars_folder(S3_PACKAGES).exists():
        return CheckResult("jars", False, f"those for S3 are not in {jars_folder(S3_PACKAGES)}", "Run `make install`.")
    state = f"{len(jars)} in {jars_folder()}" if jars else "downloaded by Spark with the first session"
    return CheckResult("jars", True, state)


def _horovod() -> Iterator[CheckResult]:
    probe = "import horovod.torch as h; print(h.gloo_built(), h.nccl_built() > 0)"
    process = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    cure = "Run deploy/build_horovod_wheel.sh to build it for the installed torch, or use training.backend: local."
    if process.returncode:
        reason = process.stderr.strip().splitlines()[-1] if process.stderr.strip() else "unknown"
        yield CheckResult("horovod with torch", False, reason, cure)
        return
    gloo, nccl = process.stdout.split()[-2:]
    yield CheckResult("horovod with torch", True, f"{package_version('horovod')}, torch {package_version('torch')}")
    yield CheckResult("horovod's gloo", gloo == "True", f"built: {gloo}; NCCL built: {nccl}", cure)


def _writable(root: str) -> str:
    check_writable(root)
    return f"{root} is writable"


def _delta_works(config: Config | None) -> str:
    spark = get_session(config.spark.master, config.spark.conf) if config else get_session("local[1]")
    zone = spark.conf.get("spark.sql.session.timeZone")
    if not (spark.conf.get("spark.master", "") or "local").startswith("local"):  # executors may have other folders
        spark.range(2).collect()
        return f"Delta is loaded, and tasks run; time zone {zone}"
    with tempfile.TemporaryDirectory() as folder:
        spark.range(1).write.format("delta").save(str(Path(folder) / "probe"))
        spark.read.format("delta").load(str(Path(folder) / "probe")).collect()
    return f"wrote and read a table, time zone {zone}"

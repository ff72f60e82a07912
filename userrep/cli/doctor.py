"""Is this machine fit: versions that belong together, Java, Horovod, a folder to write to, a session that works."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from userrep.config import Config
from userrep.errors import UserrepError, in_one_line
from userrep.spark.session import DELTA_COORDINATES, get_session, jars_folder
from userrep.store.storage import artifacts_root, check_writable

JAVA_VERSIONS = ("17", "21")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is well, what was found, and the cure where it is not."""

    check: str
    ok: bool
    found: str
    cure: str = ""

    def __str__(self) -> str:
        cure = f". {self.cure}" if self.cure and not self.ok else ""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.found}{cure}"


def findings(config: Config | None) -> Iterator[Finding]:
    """Yield the checks' findings, quick ones first; ``root`` is checked where there is a configuration."""
    yield _python()
    yield _java()
    yield _pair()
    yield _jars()
    if config is None or config.training.backend == "horovod":
        yield from _horovod()
    if config is not None:
        yield _found("root", lambda: _writable(artifacts_root(config)))
    yield _found("spark with delta", lambda: _delta_works(config))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version.startswith("3.11."), version, "Use Python 3.11.")


def _java() -> Finding:
    home = os.environ.get("JAVA_HOME")  # Spark looks there first
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        where = f"none in JAVA_HOME {home}" if home else "none on the PATH"
        return Finding("java", False, where, "Install Java 17 (Debian: openjdk-17-jre-headless), set JAVA_HOME to it.")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', said)
    version = match[1] if match else "unknown"
    return Finding("java", version in JAVA_VERSIONS, version, "Spark 4.2 needs Java 17 or 21; set JAVA_HOME to one.")


def _pair() -> Finding:
    spark, delta = importlib.metadata.version("pyspark"), importlib.metadata.version("delta-spark")
    _, artifact, wanted = DELTA_COORDINATES.split(":")
    series = artifact.removeprefix("delta-spark_").split("_")[0]
    fits = spark.startswith(f"{series}.") and delta == wanted
    cure = f"Install pyspark {series}.x with delta-spark {wanted}."
    return Finding("spark and delta", fits, f"pyspark {spark}, delta-spark {delta}", cure)


def _jars() -> Finding:
    jars = list(jars_folder().glob("*.jar"))
    found = f"{len(jars)} in {jars_folder()}" if jars else "not resolved yet: sessions fetch them at every start"
    return Finding("delta's jars", bool(jars), found, "`make setup` resolves them once.")


def _horovod() -> Iterator[Finding]:
    probe = "import horovod.torch as h; print(h.gloo_built(), h.nccl_built() > 0)"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    cure = "deploy/build_horovod_wheel.sh builds it against the installed torch; backend local works without."
    if ran.returncode:
        reason = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "unknown"
        yield Finding("horovod with torch", False, reason, cure)
        return
    gloo, nccl = ran.stdout.split()[-2:]
    version = importlib.metadata.version("horovod")
    yield Finding("horovod with torch", True, f"{version}, torch {importlib.metadata.version('torch')}")
    yield Finding("horovod's gloo", gloo == "True", f"built: {gloo}; NCCL built: {nccl}", cure)


def _writable(root: str) -> str:
    check_writable(root)
    return f"{root} is writable"


def _delta_works(config: Config | None) -> str:
    spark = get_session(config.spark.master, config.spark.conf) if config else get_session("local[1]")
    with tempfile.TemporaryDirectory() as folder:
        spark.range(1).write.format("delta").save(str(Path(folder) / "probe"))
        spark.read.format("delta").load(str(Path(folder) / "probe")).collect()
    return f"a table was written and read, time zone {spark.conf.get('spark.sql.session.timeZone')}"


def _found(check: str, look: Callable[[], object]) -> Finding:
    try:
        return Finding(check, True, str(look()))
    except UserrepError as error:
        return Finding(check, False, str(error))
    except Exception as error:  # whatever Spark throws, the doctor goes on
        return Finding(check, False, in_one_line(error))

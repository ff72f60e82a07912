"""Run tests/compat on every supported release of Spark. Write docs/platforms.json and the tables
of docs/platforms.md.

    python -m deploy.compat              all releases: `make compat-test`
    python -m deploy.compat 4.0 4.1      some of them; the records of the others are kept
    python -m deploy.compat newest       the newest PySpark of the registry, which may fail; nothing is recorded
    python -m deploy.compat --page       only the tables, from the records

The environment of a release has the versions of deploy/constraints/, in build/compat/. The newest release runs in the
environment of this process.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.reference.markdown import table

ROOT = Path(__file__).parents[1]
RECORD, PAGE = (ROOT / "docs" / f"platforms.{kind}" for kind in ("json", "md"))
# Series of Spark and the Python to test it with, if it is installed; otherwise that of this process.
PYTHONS = {"4.0": "python3.12", "4.1": "python3.13", "4.2": None}
TEST_TOOLS = ("pytest", "pytest-xdist", "psutil", "filelock", "pyspark[connect]")
# The newest PySpark of the registry with its Delta, and the pins of all other packages.
NEWEST, OTHERS = (ROOT / "build" / "compat" / name for name in ("newest.txt", "newest-others.txt"))
UNUSED = ("--excludes", "deploy/gpu_only.txt")  # packages that torch loads only on GPUs
# Platforms that tests of this repository start: the test, and the day of its last recorded pass.
STARTED = {
    "YARN": ("tests/system/cluster/test_yarn.py", "2026-12-01"),
    "Spark standalone": ("tests/system/cluster/test_jobs.py", "2026-12-01"),
}
# Platform, series of Spark, and its version there as its vendor documents it.
PLATFORMS = (
    ("Databricks Runtime 17.3 LTS", "4.0", "Spark 4.0.0, Python 3.12"),
    ("Databricks Runtime 18 LTS", "4.1", "Spark 4.1.0"),
    ("Databricks Runtime 19", "4.2", "Spark 4.2.0"),
    ("Databricks Runtime 16.4 LTS and older", "3.5", "Spark 3.5"),
    ("Dataproc on Compute Engine, image 3.0", "4.0", "Spark 4.0.0, Python 3.11, Java 17"),
    ("Dataproc Serverless, runtime 3.0", "4.0", "Spark 4.0.0, Python 3.12, Java 17"),
    ("Amazon EMR 7.13 and older", "3.5", "Spark 3.5.6"),
    ("YARN", "4.2", "Spark 4.2.0, Hadoop 3.5.0"),
    ("Kubernetes, own image", "4.2", "an image of Spark 4.0, 4.1 or 4.2"),
    ("Spark standalone", "4.2", "Spark 4.2.0, Python 3.11, Java 17"),
)


def environment(series: str) -> Path:
    """Return the Python of a release's environment, which is built unless it exists."""
    if PYTHONS.get(series, "") is None:
        return Path(sys.executable)
    folder, constraints = ROOT / "build" / "compat" / f"spark-{series}", ROOT / f"deploy/constraints/spark-{series}.txt"
    overrides: list[Any] = ["--overrides", NEWEST] if series == "newest" else []
    pins = OTHERS if overrides else constraints
    python, stamp, uv = folder / "bin" / "python", folder / ".done", Path(sys.executable).with_name("uv")
    wanted = "".join(file.read_text() for file in (ROOT / "setup.py", pins, *overrides[1:]))
    if not stamp.exists() or stamp.read_text() != wanted:
        base = shutil.which(str(PYTHONS.get(series))) or sys.executable
        print(f"compat-test: environment of Spark {series} ({base})", flush=True)
        run([uv, "venv", "--quiet", "--clear", "--python", base, folder])
        packages = ["--editable", ".[all]", *TEST_TOOLS]
        run([uv, "pip", "install", "--quiet", "--python", python, "--constraint", pins, *overrides, *UNUSED, *packages])
        stamp.write_text(wanted)
    run([python, "-m", "deploy.fetch_jars", "sessions"])
    return python


def run(command: Sequence[str | Path], **variables: str) -> None:
    """Run a command in the repository. Raises CalledProcessError if it fails."""
    subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | variables, check=True)


def tested(series: str) -> dict[str, Any]:
    """Run the suite on a release; return its record."""
    python, record = environment(series), ROOT / "build" / "compat" / f"{series}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    variables = {"PYSPARK_PYTHON": str(python), "USERREP_COMPAT_RECORD": str(record)}
    shown = ["-W", "default"]  # older packages warn about newer ones, and warnings are errors in other tests
    run([python, "-m", "pytest", "-p", "no:cacheprovider", *shown, "tests/compat"], **variables)
    return {**json.loads(record.read_text()), "tested_at": f"{datetime.now(UTC):%Y-%m-%d}"}


def try_newest() -> str:
    """Run the suite on the registry's newest PySpark and Delta, with the JARs of the newest supported release.

    Returns the outcome, which is not recorded.
    """
    pinned = (ROOT / f"deploy/constraints/spark-{max(PYTHONS)}.txt").read_text().split()
    asked = [Path(sys.executable).with_name("uv"), "pip", "compile", "--no-deps", "--no-header", "--no-annotate", "-"]
    newest = subprocess.run(asked, input="pyspark", capture_output=True, text=True, check=True).stdout.strip()
    if newest in pinned:
        return f"{newest} is the newest of the registry, and is supported: nothing to try"
    others = [pin for pin in pinned if not pin.startswith(("pyspark==", "py4j==", "delta-spark=="))]
    NEWEST.parent.mkdir(parents=True, exist_ok=True)
    OTHERS.write_text("\n".join(others))
    NEWEST.write_text("\n".join([newest.replace("==", "[connect]=="), "delta-spark!=4.4.1"]))  # as in setup.py
    try:
        return f"{newest} passed with delta-spark {tested('newest')['packages']['delta-spark']}"
    except subprocess.CalledProcessError as error:
        return f"{newest} failed: {error}"


def differences(records: dict[str, dict[str, Any]]) -> list[str]:
    """Return the digests that are not equal on all releases."""
    names = sorted({name for record in records.values() for name in record["equal"]})
    return [name for name in names if len({record["equal"].get(name) for record in records.values()}) > 1]


def page(text: str, records: dict[str, dict[str, Any]]) -> str:
    """Return the text of docs/platforms.md with the tables of these records."""
    releases = []
    for series, record in sorted(records.items()):
        versions = record["packages"]
        others = ", ".join(f"{name} {versions[name]}" for name in ("torch", "pyarrow", "numpy", "pandas"))
        backends, main = ", ".join(["local", *record["ranks"]]), [versions["pyspark"], versions["delta-spark"]]
        releases.append([series, *main, record["python"], others, backends, record["tested_at"]])
    platforms = [[name, version, _state(name, series, records)] for name, series, version in PLATFORMS]
    head = ["Spark", "PySpark", "Delta", "Python", "other packages", "training", "tested on"]
    for name, lines in (
        ("releases", table(head, releases) if releases else ["No run is recorded yet."]),
        ("platforms", table(["platform", "versions", "state"], platforms)),
    ):
        before, marker, after = re.split(rf"(<!-- {name}: .*-->\n)", text)
        text = "\n".join([f"{before}{marker}", *lines, "", after[after.index("<!-- end -->") :]])
    return text


def _state(name: str, series: str, records: dict[str, dict[str, Any]]) -> str:
    if series not in PYTHONS:
        return "not supported: needs Spark 4.0 or newer"
    if series not in records:
        return "not tested"
    if name in STARTED:
        return "tested here: `{}` passed on {}".format(*STARTED[name])
    return f"expected: Spark {series} is tested here, the platform is not"


def main(arguments: Sequence[str]) -> int:
    """Test the named releases, or all, and write the page. Return the exit code."""
    records: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if "newest" in arguments:
        print(f"compat-test: {try_newest()}")
        return 0
    if "--page" not in arguments:
        for series in arguments or PYTHONS:
            records[series] = tested(series)
        if names := differences(records):
            print(f"compat-test: {', '.join(names)} differ between releases of Spark", file=sys.stderr)
            return 1
        RECORD.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(PAGE.read_text(), records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

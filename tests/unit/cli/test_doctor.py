"""Checks of a machine: each names what it found, and the cure where something is wrong."""

import importlib.metadata
import sys
from pathlib import Path

import pyspark
import pytest

from tests.support.builders import config_of
from userrep.cli.check_result import CheckResult
from userrep.cli.doctor import doctor_checks
from userrep.config import Config
from userrep.errors import UsageError
from userrep.spark.session import S3_PACKAGES, jars_folder

pytestmark = pytest.mark.default


@pytest.fixture(autouse=True)
def _no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a session fail to start."""

    def fail(*_: object) -> None:
        raise UsageError("Spark did not start (no Java).")

    monkeypatch.setattr("userrep.cli.doctor.get_session", fail)


def script(path: Path, *lines: str) -> Path:
    """Write a program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def found(check: str, config: Config | None = None) -> CheckResult:
    """Run checks up to this one, and return what it found."""
    return next(result for result in doctor_checks(config) if result.check == check)


def test_the_doctor_checks_the_java_that_spark_will_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = next(result for result in doctor_checks(None) if result.check == "java")
    assert str(found) == "FAIL java: 11. Spark 4.2 needs Java 17 or 21. Set JAVA_HOME to one."
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    found = next(result for result in doctor_checks(None) if result.check == "java")
    assert not found.ok
    assert found.found == f"not found in JAVA_HOME {tmp_path / 'nowhere'}"


@pytest.mark.parametrize(
    ("output", "version", "is_ok"),
    [
        ("echo 'openjdk version \"17.0.11\" 2024-04-16' >&2", "17", True),
        ("echo 'openjdk version \"21\" 2023-09-19' >&2", "21", True),
        ("echo 'openjdk version \"1.8.0_412\"' >&2", "1", False),
        ("echo 'openjdk version \"170\"' >&2", "170", False),
        ("exit 1", "unknown", False),
    ],
)
def test_java_17_and_21_are_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str, version: str, is_ok: bool
) -> None:
    script(tmp_path / "bin" / "java", output)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java = found("java")
    assert (java.found, java.ok) == (version, is_ok)


def test_without_java_home_the_java_on_the_path_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(found("java")).startswith("FAIL java: not found on the PATH. Install Java 17")
    script(tmp_path / "java", "echo 'openjdk version \"17.0.11\"' >&2")
    assert str(found("java")) == "ok   java: 17"


@pytest.mark.parametrize(
    ("versions", "is_ok", "pair_to_install"),
    [
        ({"pyspark": "4.2.7", "delta-spark": "4.4.0"}, True, "pyspark 4.2.x with delta-spark 4.4.0"),
        ({"pyspark": "4.20.0", "delta-spark": "4.4.0"}, False, "pyspark 4.2.x with delta-spark 4.4.0"),
        ({"pyspark": "4.1.9", "delta-spark": "4.4.0"}, False, "pyspark 4.1.x with delta-spark 4.1.0"),
        ({"pyspark": "4.2.7", "delta-spark": "4.4.1"}, False, "pyspark 4.2.x with delta-spark 4.4.0"),
        ({"pyspark": "4.0.4", "delta-spark": "4.0.1"}, True, "pyspark 4.0.x with delta-spark 4.0.1"),
    ],
)
def test_spark_and_delta_belong_together(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], is_ok: bool, pair_to_install: str
) -> None:
    monkeypatch.setattr(pyspark, "__version__", versions["pyspark"])
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    pair = found("spark and delta")
    assert pair.ok == is_ok
    assert pair.found == f"pyspark {versions['pyspark']}, delta-spark {versions['delta-spark']}"
    assert pair.cure == f"Install {pair_to_install}."


def test_a_missing_delta_is_a_finding_and_the_other_checks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    pair = found("spark and delta")
    assert (pair.ok, pair.found.endswith("delta-spark is not installed")) == (False, True)
    assert found("jars").ok


def test_jars_are_looked_for_where_sessions_take_them_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USERREP_JARS", str(tmp_path))
    missing = found("jars")
    assert (missing.ok, missing.found) == (True, "downloaded by Spark with the first session")
    folder = tmp_path / "io.delta_delta-spark_4.2_2.13_4.4.0_org.apache.spark_spark-sql-kafka-0-10_2.13_4.2.0"
    folder.mkdir()
    (folder / "delta.jar").touch()
    assert str(found("jars")) == f"ok   jars: 1 in {folder}"
    on_s3 = config_of(tmp_path, root="s3a://bucket/userrep")
    assert str(found("jars", on_s3)).endswith(". Run `make install`.")
    jars_folder(S3_PACKAGES).mkdir()
    assert found("jars", on_s3).ok


@pytest.mark.parametrize(
    ("probe", "checks"),
    [
        (
            ("echo 'True False'",),
            ["ok   horovod with torch: 0.28, torch 0.28", "ok   horovod's gloo: built: True; NCCL built: False"],
        ),
        (
            ("echo a note; echo 'False True'",),
            ["ok   horovod with torch: 0.28, torch 0.28", "FAIL horovod's gloo: built: False; NCCL built: True"],
        ),
        (
            ("echo first >&2", "echo 'No module named horovod' >&2", "exit 1"),
            ["FAIL horovod with torch: No module name"],
        ),
        (("exit 1",), ["FAIL horovod with torch: unknown"]),
    ],
)
def test_horovod_is_asked_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probe: tuple[str, ...], checks: list[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", *probe)))
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.28" if name in ("horovod", "torch") else real(name)
    )
    horovod = [str(result) for result in doctor_checks(None) if result.check.startswith("horovod")]
    assert len(horovod) == len(checks)
    assert all(line.startswith(check) for line, check in zip(horovod, checks, strict=True))


def test_without_a_configuration_horovod_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.cli.doctor.find_spec", lambda _: None)
    assert [result.check for result in doctor_checks(None)][-2:] == ["jars", "spark with delta"]


def test_a_configuration_adds_its_root_and_takes_horovod_away_unless_it_trains_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", "exit 1")))
    local, horovod = (config_of(tmp_path, training={"backend": backend}) for backend in ("local", "horovod"))
    quick = ["python", "java", "spark and delta", "jars"]
    assert [result.check for result in doctor_checks(local)] == [*quick, "root", "spark with delta"]
    names = [result.check for result in doctor_checks(horovod)]
    assert names == [*quick, "horovod with torch", "root", "spark with delta"]
    assert found("root", local) == CheckResult("root", True, f"{tmp_path}/root is writable")
    assert found("spark with delta", local) == CheckResult("spark with delta", False, "Spark did not start (no Java).")


def test_an_unexpected_error_of_a_check_is_its_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr("userrep.cli.doctor.get_session", broken)
    monkeypatch.setattr("userrep.cli.doctor.check_writable", broken)
    config = config_of(tmp_path)
    assert found("root", config) == CheckResult("root", False, "ValueError: first line")
    assert found("spark with delta", config) == CheckResult("spark with delta", False, "ValueError: first line")

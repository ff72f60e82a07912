"""Secrets that a configuration or the environment holds are shown nowhere: in no message, log, table or page."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.nights import files_naming
from tests.support.builders import EVENT_COLUMNS, event, write_rows
from userrep.config import load_config
from userrep.errors import UsageError
from userrep.spark.session import REDACTED

pytestmark = pytest.mark.default

SECRET = "hunter2"
SMALL: dict[str, Any] = {"root": "r", "events": {"path": "l", "columns": EVENT_COLUMNS}}
TOPIC = {"events": {"topic": "t"}}
ADDRESS = f"https://me:{SECRET}@host"


@pytest.mark.parametrize(
    "sections",
    [
        {"stream": {"redis": {"url": ADDRESS}}},
        {"stream": {"redis": ADDRESS}},
        {"stream": TOPIC | {"kafka": {"bootstrap_servers": "b", "options": {"sasl.password": [SECRET]}}}},
        {"stream": TOPIC | {"kafka": {"bootstrap_servers": "b", "options": f"password={SECRET}"}}},
        {"tracking": {"uri": [SECRET]}},
        {"tracking": ADDRESS},
        {"spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": [SECRET]}}},
        {"spark": {"conf": SECRET}},
        {"root": f"s3a://key:{SECRET}@bucket/root"},
        {"events": {"path": f"s3a://key:{SECRET}@bucket/log", "columns": EVENT_COLUMNS}},
        {"events": {"path": f"s3a://key:a/{SECRET}@bucket/log", "columns": EVENT_COLUMNS}},
    ],
    ids=range(11),
)
def test_an_error_about_a_secret_does_not_contain_it(tmp_path: Path, sections: dict[str, Any]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL | sections))
    with pytest.raises(
        UsageError, match=r"must be (a section|text)|must match the pattern|must not contain a password"
    ) as caught:
        load_config(tmp_path / "c.yaml")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", [f"redis: 'x{SECRET}\n", f"a: [{SECRET}: {SECRET}: ]", f"\t{SECRET}: x"])
def test_a_file_that_is_no_yaml_is_refused_without_its_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"cannot be read as YAML: .* in line \d") as caught:
        load_config(tmp_path / "c.yaml")
    assert SECRET not in str(caught.value)


def test_an_error_about_an_override_does_not_contain_its_value(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMALL))
    overrides = [f"root.x={SECRET}", f"stream.redis.url=[{SECRET}", f"={SECRET}"]
    with pytest.raises(UsageError, match=r"--set stream.redis.url=\.\.\.: the value cannot be read as YAML") as caught:
        load_config(tmp_path / "c.yaml", overrides)
    assert SECRET not in str(caught.value)


def test_spark_hides_log_ins_and_passwords_in_addresses() -> None:
    for setting in ("spark.hadoop.fs.s3a.secret.key", "kafka.sasl.jaas.config", "spark.ssl.keyPassword", ADDRESS):
        assert re.search(REDACTED, setting)
    for setting in ("spark.app.name", "spark.hadoop.fs.s3a.endpoint", "https://host/path", "abfss:/x"):
        assert not re.search(REDACTED, setting)


@pytest.mark.full
def test_a_run_and_its_report_show_no_secret(tmp_path: Path) -> None:
    days = [f"2024-05-{day:02}" for day in range(1, 9)]
    write_rows(tmp_path / "log" / "a.parquet", [event(f"u{k}", f"i{k}", day) for k in range(4) for day in days])
    write_rows(tmp_path / "log" / "b.parquet", [event(user, "i1", "2024-05-02") for user in ("u1", None)])
    (tmp_path / "spark-events").mkdir()
    values = {
        "root": str(tmp_path / "root"),
        "events": {"path": str(tmp_path / "log"), "columns": EVENT_COLUMNS, "max_rejected_share": 0.5},
        "windows_days": [2],
        "tracking": {"uri": f"http://me:{SECRET}@127.0.0.1:1"},
        "stream": {
            **TOPIC,
            "kafka": {
                "bootstrap_servers": "127.0.0.1:1",
                "options": {"sasl.jaas.config": "x password='${USERREP_P}';"},
            },
            "redis": {"url": "redis://:${USERREP_P}@127.0.0.1:1/0"},
        },
        "spark": {
            "master": "local[1]",
            "conf": {
                "spark.hadoop.fs.s3a.secret.key": SECRET,
                "spark.hadoop.kafka.sasl.jaas.config": f"x password='{SECRET}';",
                "spark.hadoop.proxy.address": ADDRESS,
                "spark.eventLog.enabled": "true",
                "spark.eventLog.compress": "false",
                "spark.eventLog.dir": (tmp_path / "spark-events").as_uri(),
            },
        },
    }
    config = tmp_path / "config" / "c.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(values))
    environment = os.environ | {
        "USERREP_P": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "MLFLOW_TRACKING_PASSWORD": SECRET,
    }
    said = ""
    for command in (
        ["run", "build_activity_tiles", "--config", str(config), "--as-of", "2024-05-08", "--debug"],
        ["report", "--config", str(config), "--out", str(tmp_path / "report.html")],
    ):
        program = [sys.executable, "-m", "userrep.cli", *command]
        ran = subprocess.run(program, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
        said += ran.stdout + ran.stderr
        assert ran.returncode == 0, ran.stderr[-2000:]
    config.unlink()
    assert SECRET not in said
    assert len(list((tmp_path / "spark-events").rglob("*"))) >= 1
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert files_naming(tmp_path, "build_activity_tiles")
    assert files_naming(tmp_path, SECRET) == []

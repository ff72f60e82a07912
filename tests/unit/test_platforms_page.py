"""The page of platforms says what the records of `make compat-test` say, and these are of the pinned versions."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import compat
from deploy.compat import RECORD, ROOT, STARTED, differences, page

pytestmark = pytest.mark.fast

RECORDS = json.loads(RECORD.read_text()) if RECORD.exists() else {}
PAGE = (ROOT / "docs" / "platforms.md").read_text()


def pins_of(constraints: Path) -> dict[str, str]:
    lines = constraints.read_text().split()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def test_the_tables_are_those_of_the_records() -> None:
    assert page(PAGE, RECORDS) == PAGE


def test_a_release_that_was_not_tested_is_not_called_tested_or_expected() -> None:
    untested = page(PAGE, {series: record for series, record in RECORDS.items() if series != "4.1"})
    assert "| Databricks Runtime 18 LTS | Spark 4.1.0 | not tested |" in untested
    assert "| Amazon EMR 7.13 and older | Spark 3.5.6 | not supported: needs Spark 4.0 or newer |" in untested


def test_a_platform_that_is_called_tested_names_its_test_and_the_day_that_it_passed() -> None:
    for name, (test, day) in STARTED.items():
        assert (ROOT / test).exists()
        assert re.search(rf"^\| {name} \|.*\| tested here: `{test}` passed on {day} \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(
    ("newest", "outcome"),
    [
        ("pyspark==4.2.0", "pyspark==4.2.0 is the newest of the registry, and is supported: nothing to try"),
        ("pyspark==9.0.0", "pyspark==9.0.0 failed: Command 'pytest' returned non-zero exit status 1."),
    ],
)
def test_the_newest_pyspark_is_tried_unless_it_is_supported_and_may_fail(
    newest: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tested(series: str) -> dict[str, Any]:
        assert series == "newest"
        assert "pyspark[connect]==9.0.0" in compat.NEWEST.read_text().split()
        raise subprocess.CalledProcessError(1, "pytest")

    monkeypatch.setattr(compat, "NEWEST", tmp_path / "build" / "newest.txt")
    monkeypatch.setattr(compat, "OTHERS", tmp_path / "build" / "others.txt")
    monkeypatch.setattr(compat, "tested", tested)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(stdout=f"{newest}\n"))
    assert compat.main(["newest"]) == 0
    assert capsys.readouterr().out == f"compat-test: {outcome}\n"


def test_features_are_equal_on_all_releases() -> None:
    assert differences(RECORDS) == []
    equal = {"log": "a", "features": "b"}
    assert differences({"4.1": {"equal": equal}, "4.2": {"equal": equal | {"features": "c"}}}) == ["features"]


def test_the_tested_versions_are_the_pinned_ones() -> None:
    for series, record in RECORDS.items():
        pins = pins_of(ROOT / "deploy" / "constraints" / f"spark-{series}.txt")
        assert {name: pins[name] for name in record["packages"]} == record["packages"]


def test_the_badges_of_the_readme_name_the_lowest_python_and_the_recorded_releases_of_spark() -> None:
    versions = dict(re.findall(r"img\.shields\.io/badge/([a-z]+)-(\S+)-blue\)", (ROOT / "README.md").read_text()))
    setup = (ROOT / "setup.py").read_text()
    assert f'python_requires=">={versions["python"].removesuffix("%2B")}"' in setup
    assert f'license="{versions["license"].replace("--", "-")}"' in setup
    assert versions["spark"].split("%20to%20") == [min(RECORDS), max(RECORDS)]
    assert versions["tests"] == "make%20test"

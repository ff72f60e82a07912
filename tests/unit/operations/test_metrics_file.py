"""The metrics file, read by the parser of prometheus_client."""

import importlib.util
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from userrep.errors import UsageError
from userrep.operations.metrics_file import Metric, check_metrics_file, write_metrics

pytestmark = pytest.mark.fast


def test_a_file_is_replaced_and_has_help_and_type_of_each_metric_with_values(tmp_path: Path) -> None:
    file = tmp_path / "userrep.prom"
    file.write_text("old")
    metrics = [
        Metric("age_seconds", 'Age "now".', "of", {"log": 1.5, 'a "b"\n': -2.0}),
        Metric("events", "Events.", "", {"": 3.0}),
        Metric("drift", "Drift.", "metric", {}),
    ]
    write_metrics(str(file), "s3://b/r", metrics)
    families = {family.name: family for family in text_string_to_metric_families(file.read_text())}
    assert list(families) == ["userrep_age_seconds", "userrep_events"]
    age, events = families.values()
    assert (age.type, age.documentation) == ("gauge", 'Age "now".')
    assert {sample.labels["of"]: sample.value for sample in age.samples} == {"log": 1.5, 'a "b"\n': -2.0}
    assert [(sample.labels, sample.value) for sample in events.samples] == [({"root": "s3://b/r"}, 3.0)]
    assert list(tmp_path.iterdir()) == [file]  # no temporary file is left


def test_a_missing_folder_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_metrics_file(str(tmp_path / "userrep.prom"))
    with pytest.raises(UsageError, match=r"alerts\.prometheus_file: there is no folder .*/none\. Make it"):
        check_metrics_file(str(tmp_path / "none" / "userrep.prom"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'userrep\[monitoring\]'"):
        check_metrics_file(str(tmp_path / "userrep.prom"))

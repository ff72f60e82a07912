"""Metrics as a text file for node exporter's textfile collector, written by ``prometheus_client``."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from userrep.errors import UsageError

_KEY = "alerts.prometheus_file"


class Metric(NamedTuple):
    """A gauge: its name without prefix, its meaning, the name of its label (empty: none), and a value per label."""

    name: str
    meaning: str
    label: str
    values: dict[str, float]


def check_metrics_file(path: str) -> None:
    """Check that the file can be written.

    Raises
    ------
    UsageError
        If its folder does not exist, or if ``prometheus_client`` is not installed.
    """
    if not Path(path).parent.is_dir():
        raise UsageError(f"{_KEY}: there is no folder {Path(path).parent}. Make it, or name a file in another one.")
    if importlib.util.find_spec("prometheus_client") is None:
        raise UsageError(f"{_KEY}: needs prometheus_client. Install it with `pip install 'userrep[monitoring]'`.")


def write_metrics(path: str, root: str, metrics: Iterable[Metric]) -> None:
    """Write the metrics that have values, each with the label ``root``. The file is replaced in one step."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    for metric in metrics:
        if metric.values:
            labels = ["root", *([metric.label] if metric.label else [])]
            gauge = Gauge(f"userrep_{metric.name}", metric.meaning, labels, registry=registry)
            for label, value in metric.values.items():
                gauge.labels(root, *([label] if metric.label else [])).set(value)
    write_to_textfile(path, registry)

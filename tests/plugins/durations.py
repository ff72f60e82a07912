"""Recorded durations, which determine the order of files, so that parallel processes end at the same time.

``tests/durations.json`` has seconds by file and tier. ``--record-durations`` updates those of the tests that ran.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.plugins.tiers import tier_of

RECORDED = Path(__file__).parents[1] / "durations.json"
SHARED = ("tests/system/cluster", "tests/system/faults", "tests/system/s3")
UNKNOWN = 30.0  # seconds; a file without a record starts early
Durations = dict[str, dict[str, float]]


def recorded_durations() -> Durations:
    """Return seconds by file and tier, as last recorded."""
    durations: Durations = json.loads(RECORDED.read_text(encoding="utf-8"))
    return durations


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--record-durations``."""
    parser.addoption("--record-durations", action="store_true", help=f"update {RECORDED.name} with the tests that ran")


def pytest_configure(config: pytest.Config) -> None:
    """Record in the process that receives all reports: the only one, or the parent of the pytest-xdist processes."""
    if config.getoption("record_durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder())


@pytest.hookimpl(trylast=True)  # after deselection
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by their recorded duration, the longest first; tests of a file stay in order."""
    recorded = recorded_durations()
    tiers: dict[str, set[str | None]] = defaultdict(set)
    for item in items:
        tiers[_file_of(item.nodeid)].add(tier_of(item))
    seconds = {
        file: sum(recorded.get(file, {}).get(tier or "", UNKNOWN) for tier in file_tiers)
        for file, file_tiers in tiers.items()
    }
    in_order = sorted(seconds, key=lambda file: (-seconds[file], file))
    waiting = {_file_of(item.nodeid) for item in items if "run_once" in getattr(item, "fixturenames", ())}
    others = [file for file in in_order if file not in waiting]
    if others and in_order[0] in waiting:  # one process does the shared run; the next file must not wait for it
        in_order.remove(others[0])
        in_order.insert(1, others[0])
    positions = {file: k for k, file in enumerate(in_order)}
    items.sort(key=lambda item: positions[_file_of(item.nodeid)])
    for item in items:
        item.user_properties.append(("tier", tier_of(item)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Give each process whole files, or whole folders if their tests share a cluster, a bucket or a world."""
    return _Scheduling(config, log)


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return next((folder for folder in SHARED if file.startswith(f"{folder}/")), file)


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class _Recorder:
    """Sums the seconds of set-up, call and teardown by file and tier."""

    def __init__(self) -> None:
        self.seconds: Durations = defaultdict(lambda: defaultdict(float))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = dict(report.user_properties).get("tier")
        self.seconds[_file_of(report.nodeid)][str(tier)] += report.duration

    def pytest_sessionfinish(self) -> None:
        durations = recorded_durations()
        for file, by_tier in self.seconds.items():
            durations.setdefault(file, {}).update({tier: round(s, 1) for tier, s in by_tier.items()})
        existing = {file: durations[file] for file in sorted(durations) if (RECORDED.parents[1] / file).exists()}
        RECORDED.write_text(json.dumps(existing, indent=1) + "\n", encoding="utf-8")

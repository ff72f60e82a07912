"""The benchmark of audiences on few users: it finds the planted users and returns its line."""

from pathlib import Path

import pytest

from benchmarks import audience
from benchmarks.audience import AudienceSize
from tests.support.benchmark_lines import check_line

pytestmark = pytest.mark.full


def test_the_benchmark_finds_the_planted_users_and_returns_its_line(tmp_path: Path) -> None:
    line = audience.measure(AudienceSize(6000, seeds=40, audience=60, dim=60), tmp_path, 1)
    check_line(line, "audience", ("users", "seeds", "audience", "dim"), tmp_path)

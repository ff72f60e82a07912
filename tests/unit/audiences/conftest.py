"""What the tests of audiences share."""

import pytest


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep scikit-learn from starting a process to count cores."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")

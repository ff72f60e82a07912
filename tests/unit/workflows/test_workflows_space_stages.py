"""The stages of a space: what a run does that finds the work of a killed one."""

from contextlib import nullcontext
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.builders import config_of
from userrep.spaces.registry import add_candidate, find_space
from userrep.store.open import open_tables
from userrep.workflows import space_stages
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.fast

DAY = date(2024, 5, 31)


def test_a_candidate_whose_run_was_killed_after_its_publication_becomes_ready_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, lines = config_of(tmp_path), list[str]()
    tables = open_tables(config, None)
    add_candidate(tables, space_id="s1", lineage_id="l1", trained_until=DAY, content_hash="0" * 64)
    runs = SimpleNamespace(stage=lambda *_, **__: nullcontext(SimpleNamespace(skip=lines.append)))
    work = cast(RunContext, SimpleNamespace(tables=tables, config=config, runs=runs))
    monkeypatch.setattr(space_stages, "without_snapshot", lambda *_: list[Any]())  # all dates are published
    space_stages.publish_snapshots(work, find_space(tables, "s1"), [DAY])
    assert find_space(tables, "s1").state == "ready"
    space_stages.promote_first(work, find_space(tables, "s1"))
    assert find_space(tables, None).space_id == "s1"
    assert lines == ["1 snapshot of space s1"]

"""The receipt of an erasure as text: one line for each thing that was erased, and for what is left to do."""

from datetime import datetime
from typing import Any

import pytest

from userrep.erasure.receipt import receipt_lines

pytestmark = pytest.mark.fast

EMPTY: dict[str, Any] = {
    "request_id": None, "num_users": 0, "rows": {}, "training_sets": [], "exports": {}, "online": None, "streams": {},
    "under_way": [], "kept_until": datetime(2024, 5, 8, 6, 30), "num_done": 0,
}  # fmt: skip


def test_a_request_is_shown_with_everything_that_was_erased() -> None:
    request = {"request_id": "f1", "num_users": 1_200, "num_new": 1_000, "num_with_rows": 900}
    erased = {"rows": {"user_embeddings": 1_800}, "training_sets": ["t1"], "exports": {"/out": "3 rows"}, "online": 7}
    assert receipt_lines(EMPTY | request | erased | {"streams": {"query": "checkpoint removed"}}) == [
        "request f1: 1,200 users, 900 of them with rows, 200 already forgotten",
        "user_embeddings: 1,800 rows deleted",
        "training set t1: rows of its snapshots were deleted",
        "export /out: 3 rows",
        "online store: 7 vectors deleted",
        "stream query: checkpoint removed",
        "older versions of the tables: readable until 2024-05-08 06:30 UTC, removed by the next `userrep forget` after "
        "that",
    ]


def test_a_receipt_without_rows_does_not_mention_older_versions_unless_they_were_removed() -> None:
    assert receipt_lines(EMPTY) == []
    assert receipt_lines(EMPTY | {"kept_until": None, "num_done": 2}) == [
        "older versions of the tables: removed",
        "finished requests: 2",
    ]


def test_each_run_at_the_same_time_is_named_with_the_command_to_run_after_it() -> None:
    first, second = receipt_lines(EMPTY | {"under_way": ["daily: run r1", "pipeline: run r2"]})
    assert first.startswith("running at the same time: daily: run r1. ")
    assert second.startswith("running at the same time: pipeline: run r2. ")
    assert "run `userrep forget` again" in first


def test_nothing_to_do_is_one_line() -> None:
    assert receipt_lines({"is_idle": True}) == ["nothing to do: no request is open"]

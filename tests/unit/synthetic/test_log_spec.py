"""The specification of a generated log."""

from datetime import date
from typing import Any

import pytest

from userrep.errors import UsageError
from userrep.synthetic.log_spec import LogSpec

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"num_users": 1}, r"num_users must be between 2 and 1e\+09, got 1"),
        ({"num_items": 3}, r"num_items must be between 8 and 1e\+08, got 3"),
        ({"num_tastes": 9}, "num_tastes must be between 2 and 8, got 9"),
        ({"leaving_share": 1.5}, "leaving_share must be between 0 and 1, got 1.5"),
        ({"malformed_share": float("nan")}, "malformed_share must be between 0 and 0.5, got nan"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        LogSpec(**values)


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(UsageError) as caught:
        LogSpec(num_days=0, seed=-1, late_share=2)
    assert len(caught.value.faults) == 3


def test_values_at_the_ends_of_their_ranges_are_accepted() -> None:
    least = LogSpec(2, 2, date(2024, 1, 1), 1, 0.01, 2, 2, 0, 0, 0, 0, 0)
    most = LogSpec(2, 12, date(2024, 1, 1), 10_000, 200, 12, 12, 2**63 - 1, 0.5, 0.5, 0.5, 0.5)
    assert (least.num_days, most.num_days) == (1, 10_000)


@pytest.mark.parametrize(
    ("spec", "per_block", "num_blocks"),
    [
        (LogSpec(num_users=128, num_days=40), 128, 1),
        (LogSpec(num_users=129, num_days=40), 128, 2),
        (LogSpec(num_users=100, num_days=1000, events_per_user_day=20), 10, 10),
        (LogSpec(num_users=3, num_days=10_000, events_per_user_day=200), 1, 3),
    ],
)
def test_blocks_hold_some_200_000_events_and_at_most_128_users(spec: LogSpec, per_block: int, num_blocks: int) -> None:
    assert (spec.users_per_block, spec.num_blocks) == (per_block, num_blocks)

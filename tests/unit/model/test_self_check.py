"""What a self-check says of itself."""

from datetime import date

import pytest

from userrep.model.self_check import Interval, SelfCheck

pytestmark = pytest.mark.fast


NEIGHBOURS = {"embedding": 0.25, "raw": 0.3, "pca": 0.2}


def check_of(**means: tuple[float, float, float]) -> SelfCheck:
    """Make a check with a mean lead over each of some peers."""
    return SelfCheck(
        trained_until=date(2024, 3, 1), test_as_ofs=[date(2024, 4, 1)], num_training_dates=3, num_test_users=50,
        values={"return_7d": {"embedding": 0.7, "raw": 0.65}, "neighbours": NEIGHBOURS},
        ahead={peer: {"items": Interval(9, 9, 9), "mean": Interval(*mean)} for peer, mean in means.items()},
    )  # fmt: skip


def test_the_gain_is_the_mean_lead_over_the_best_peer() -> None:
    found = check_of(raw=(0.02, 0.01, 0.03), pca=(0.004, -0.001, 0.01))
    assert (found.best_peer, found.gain) == ("pca", (0.004, -0.001, 0.01))
    assert found.summary == "the embedding is 0.4% ahead of pca [-0.1%, +1.0%]"
    assert check_of(raw=(-0.021, -0.03, -0.01)).summary == "the embedding is 2.1% behind raw [-3.0%, -1.0%]"


def test_a_table_has_a_line_for_each_task_and_an_empty_cell_where_nothing_was_measured() -> None:
    head, rows = check_of(raw=(0.02, 0.01, 0.03), pca=(0.004, -0.001, 0.01)).table
    assert head == ["task", "embedding", "raw", "pca"]
    assert rows == [
        ["return_7d", "0.7000", "0.6500", ""],
        ["neighbours", "0.2500", "0.3000", "0.2000"],
        ["embedding ahead by", "", "+2.0%", "+0.4%"],
    ]


def test_a_check_survives_a_manifest() -> None:
    found = check_of(raw=(0.02, 0.01, 0.03))
    assert SelfCheck.model_validate_json(found.model_dump_json()) == found


def test_a_person_reads_the_table_what_it_comes_to_and_what_is_not_in_it() -> None:
    found = check_of(raw=(0.02, 0.01, 0.03)).model_copy(
        update={
            "not_judged": ["neighbours"],
            "left_out": {"volume_30d": "too few"},
            "akin": ["return_7d", "neighbours"],
        }
    )
    assert found.lines == [
        "self-check, trained until 2024-03-01 and judged on the days after that:",
        "task                embedding  raw     pca",
        "return_7d *         0.7000     0.6500",
        "neighbours * ?      0.2500     0.3000  0.2000",
        "embedding ahead by             +2.0%",
        "over all judged tasks: the embedding is 2.0% ahead of raw [+1.0%, +3.0%]",
        "*: the task's labels resemble the training's objectives, on later days",
        "?: not judged, with fewer than 200 test examples, or 200 of a class",
        "left out: volume_30d: too few",
    ]

"""Messages for what pydantic refuses: what the value must be, in words of YAML."""

from typing import Any

import pytest

from tests.support.configurations import SMALLEST, USERS, fault_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ({"model": {"latent_dim": "wide"}}, "model.latent_dim: must be a whole number, got 'wide'."),
        ({"model": {"latent_dim": None}}, "model.latent_dim: must be a whole number, got null."),
        ({"retraining": {"every": "36h"}}, "retraining.every: must be a whole number of days, such as 28d, got '36h'."),
        (
            {"snapshots": {"keep_daily": "36h"}},
            "snapshots.keep_daily: must be a whole number of days, such as 28d, got '36h'.",
        ),
        (
            {"freshness": {"warn_after": "1h", "error_after": "0h"}},
            "freshness: warn_after must not be longer than error_after. Swap them.",
        ),
        ({"model": {"noise": "much"}}, "model.noise: must be a number, got 'much'."),
        ({"model": {"noise": float("nan")}}, "model.noise: must be a finite number, got nan."),
        ({"model": {"preset": True}}, "model.preset: must be next_days or autoencoder, got true."),
        ({"quality": {"self_check": "maybe"}}, "quality.self_check: must be true or false, got 'maybe'."),
        ({"windows_days": [[None, False]]}, "windows_days.0: must be a whole number, got [null, false]."),
        ({"users": {**USERS, "attributes": "age"}}, "users.attributes: must be a list, such as [7, 30], got 'age'."),
        ({"root": 3}, "root: must be text, got 3."),
        (
            {"spark": {"item_vectors_bytes": "2Gx"}},
            "spark.item_vectors_bytes: must be a size, such as 2GiB, got '2Gx'.",
        ),
        ({"spark": {"item_vectors_bytes": 0}}, "spark.item_vectors_bytes: must be greater than 0, got 0."),
        ({"spark": {"conf": {1: "x"}}}, "spark.conf.1: a key must be text."),
        ({"item_vectors": {3: {"kind": "als"}}}, "item_vectors.3: a key must be text."),
        ({"training": {"held_out_share": 0.5}}, "training.held_out_share: must be less than 0.5, got 0.5."),
        ({"tracking": {"experiment": ""}}, "tracking.experiment: must not be empty, got ''."),
    ],
)
def test_a_fault_names_in_plain_words_what_the_value_must_be(sections: dict[str, Any], fault: str) -> None:
    assert fault_of({**SMALLEST, **sections}) == fault

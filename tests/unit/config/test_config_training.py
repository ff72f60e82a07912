"""Settings of a training: how batches are dealt to ranks, and what decides the result."""

from typing import Any

import pytest

from tests.support.configurations import SMALLEST, fault_of, faults_of, parsed
from userrep.config import Training

pytestmark = pytest.mark.fast


def training(**settings: Any) -> Training:
    return parsed(training=settings).training


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"backend": "local", "num_workers": 2},
            "training: num_workers must be 1 with backend local. Set backend: horovod for more ranks.",
        ),
        (
            {"backend": "horovod", "num_workers": 3},
            "training: num_workers must divide num_shards (16), so that all ranks take equal steps.",
        ),
        ({"batch_size": 500}, "training: batch_size must be a multiple of num_shards (16)."),
    ],
)
def test_ranks_and_batches_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    assert said in fault_of({**SMALLEST, "training": settings})


def test_all_faults_of_ranks_and_batches_are_reported_together() -> None:
    faults = faults_of({**SMALLEST, "training": {"num_workers": 3, "batch_size": 100}})
    assert [fault.split(" must ")[0] for fault in faults] == [
        "training: num_workers",
        "training: num_workers",
        "training: batch_size",
    ]


def test_the_recipe_depends_on_what_changes_the_result_and_not_on_where_it_is_trained() -> None:
    recipe = training().recipe
    neutral: list[dict[str, Any]] = [
        {"backend": "horovod", "num_workers": 4},
        {"backend": "torch_distributor", "threads": 8},
        {"max_restarts": 9, "checkpoint_every": "1h"},
    ]
    assert [training(**settings).recipe for settings in neutral] == [recipe] * 3
    other: list[dict[str, Any]] = [
        {"batch_size": 256},
        {"num_shards": 8},
        {"seed": 18},
        {"precision": "bf16"},
        {"init_from": "s001"},
        {"as_ofs": {"until": "2024-01-01"}},
        {"max_rows": 1000},
    ]
    recipes = [recipe, *(training(**settings).recipe for settings in other)]
    assert [found for k, found in enumerate(recipes) if found in recipes[:k]] == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"held_out_share": 0.5}}, "training.held_out_share: must be less than 0.5"),
        ({"training": {"held_out_share": 0}}, "training.held_out_share: must be greater than 0"),
        ({"training": {"clip_norm": 0}}, "training.clip_norm: must be greater than 0"),
        ({"training": {"backend": "ddp"}}, "training.backend: must be local, horovod or torch_distributor, got 'ddp'."),
        ({"model": {"dropout": 1}}, "model.dropout: must be less than 1"),
        ({"model": {"latent_dim": 1}}, "model.latent_dim: must be at least 2"),
        ({"model": {"reconstruction_weight": 0}}, "model.reconstruction_weight: must be greater than 0"),
    ],
)
def test_a_setting_at_the_end_of_an_open_range_is_refused(sections: dict[str, Any], said: str) -> None:
    assert fault_of({**SMALLEST, **sections}).startswith(said)

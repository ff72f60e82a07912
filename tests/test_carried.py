"""Which inputs a latent carries as they are, and that training leaves them alone."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.test_layout import LAYOUT, SPEC
from tests.test_training import LAYOUT as TRAINED
from tests.test_training import silent, task_on
from userrep import config
from userrep.model.autoencoder import Autoencoder
from userrep.model.carried import carried_inputs, num_carried_by
from userrep.training.comm import LocalComm
from userrep.training.loop import train

NUM_COUNTS, WIDTH = len(SPEC.scalars), SPEC.modalities["behaviour"]


def carried(latent_dim: int, share: float) -> np.ndarray:
    return carried_inputs(LAYOUT, config.Model(latent_dim=latent_dim, carried_share=share))


def input_of(name: str) -> int:
    return next(block.start for block in LAYOUT.blocks if block.name == name)


def test_counts_come_first_and_then_the_direction_over_the_longest_time_with_that_of_the_picks() -> None:
    weight_CF = carried(NUM_COUNTS + WIDTH + 1, 0.99)
    assert len(weight_CF) == NUM_COUNTS + WIDTH
    for k, name in enumerate(SPEC.scalars):
        assert np.flatnonzero(weight_CF[k]).tolist() == [input_of(name)]
    for k, row_F in enumerate(weight_CF[NUM_COUNTS:]):
        longest, picks = input_of("behaviour_7d") + k, input_of("behaviour_onboarding") + k
        assert np.flatnonzero(row_F).tolist() == sorted([longest, picks])
        assert row_F[longest] == 1 > row_F[picks] > 0


@pytest.mark.parametrize(
    ("latent_dim", "share", "num_carried"),
    [
        (2, 0.85, 0),
        (100, 0.0, 0),
        (10, (NUM_COUNTS - 1) / 10, sum(SPEC.modalities.values())),
        (100, 0.5, NUM_COUNTS + sum(SPEC.modalities.values())),
    ],
)
def test_what_has_no_room_as_a_whole_is_left_to_the_code(latent_dim: int, share: float, num_carried: int) -> None:
    assert carried(latent_dim, share).shape == (num_carried, LAYOUT.width)


def test_training_teaches_only_what_is_not_carried(tmp_path: Path) -> None:
    task = task_on(tmp_path, weight_decay=1.0)
    autoencoder = Autoencoder(TRAINED, task.model)
    assert 0 < autoencoder.num_carried < task.model.latent_dim
    tensors = safetensors.numpy.load(train(task, LocalComm(), silent).weights)
    assert num_carried_by(tensors) == autoencoder.num_carried
    of_inputs, of_hidden = (tensors[f"encoder_{name}.weight"][: autoencoder.num_carried] for name in ("skip", "latent"))
    np.testing.assert_array_equal(of_inputs, autoencoder.carried_CF)
    assert not of_hidden.any()
    assert not tensors["encoder_latent.bias"][: autoencoder.num_carried].any()
    for decoder in ("decoder_hidden", "future_hidden"):
        assert not tensors[f"{decoder}.weight"][:, : autoencoder.num_carried].any()
        assert tensors[f"{decoder}.weight"][:, autoencoder.num_carried :].any()

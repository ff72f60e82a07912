"""Which inputs a latent carries as they are, and that training leaves them alone."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import scipy.linalg
import torch

from tests.unit.test_layout import LAYOUT, SPEC
from tests.unit.test_training import LAYOUT as TRAINED
from tests.unit.test_training import silent, task_on
from userrep import config
from userrep.features.layout import UNKNOWN, InputLayout, Moments, Scaler
from userrep.model.autoencoder import Autoencoder
from userrep.model.carried import carried_inputs, carried_tastes, num_carried_by, whitening_of
from userrep.training.comm import LocalComm
from userrep.training.loop import train

pytestmark = pytest.mark.fast

NUM_COUNTS, WIDTH, NUM_CODE = len(SPEC.scalars), SPEC.modalities["behaviour"], 8
COUNTRY = next(block for block in LAYOUT.blocks if block.name == "attribute_country")


def carried(latent_dim: int, share: float) -> np.ndarray:
    return carried_inputs(LAYOUT, config.Model(latent_dim=latent_dim, carried_share=share))


def input_of(name: str) -> int:
    return next(block.start for block in LAYOUT.blocks if block.name == name)


def test_counts_come_first_and_then_directions_the_longer_the_window_the_more_and_the_picks_least() -> None:
    weight_CF = carried(NUM_COUNTS + WIDTH + 1, 0.99)
    assert len(weight_CF) == NUM_COUNTS + WIDTH
    for k, name in enumerate(SPEC.scalars):
        assert np.flatnonzero(weight_CF[k]).tolist() == [input_of(name)]
    taste_CF, blocks = weight_CF[NUM_COUNTS:], [f"behaviour_{name}" for name in ("7d", "2d", "onboarding")]
    parts = [taste_CF[:, input_of(name) : input_of(name) + WIDTH] for name in blocks]
    assert np.count_nonzero(taste_CF) == sum(np.count_nonzero(part) for part in parts)
    np.testing.assert_allclose(parts[0] @ parts[0].T, np.eye(WIDTH), atol=1e-6)
    shorter, picks = (np.linalg.norm(part[:, 0]) for part in parts[1:])
    assert 1 > shorter > picks > 0
    np.testing.assert_allclose(parts[1], shorter * parts[0], rtol=1e-5)
    np.testing.assert_allclose(parts[2], picks * parts[0], rtol=1e-5)


def test_attributes_come_before_the_directions_of_other_modalities_a_direction_for_each_value() -> None:
    room = NUM_COUNTS + WIDTH + NUM_CODE
    assert SPEC.modalities["content"] <= NUM_CODE
    weight_CF = carried(room + 1, room / (room + 1))
    assert len(weight_CF) == room
    assert not np.delete(weight_CF[-NUM_CODE:], np.s_[COUNTRY.start : COUNTRY.stop], axis=1).any()
    code_VC = weight_CF[-NUM_CODE:, COUNTRY.start : COUNTRY.stop].T
    code_VC /= np.linalg.norm(code_VC, axis=1, keepdims=True)
    cosines = code_VC @ code_VC.T
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=1e-6)
    assert np.abs(cosines - np.diag(np.diag(cosines))).max() < 0.9


def test_attributes_have_one_deviation_whatever_their_vocabulary_and_a_value_its_direction_in_every_space() -> None:
    rng, directions = np.random.default_rng(1), []
    for values in (["fr", UNKNOWN], ["de", "es", "fr", "it", "pt", UNKNOWN]):
        layout = InputLayout.of(SPEC, {**LAYOUT.vocabulary, "attribute_country": values})
        block = next(block for block in layout.blocks if block.name == "attribute_country")
        raw_BF = np.zeros((40_000, layout.width), np.float32)
        raw_BF[np.arange(len(raw_BF)), block.start + rng.integers(len(values), size=len(raw_BF))] = 1
        x_BF = Scaler.fit(layout, Moments.of(raw_BF)).apply(layout, raw_BF)
        weight_CF = carried_inputs(layout, config.Model(latent_dim=100))[NUM_COUNTS + WIDTH :][:NUM_CODE]
        variance = np.square(x_BF @ weight_CF.T - (x_BF @ weight_CF.T).mean(axis=0)).mean()
        assert 0.25 < np.sqrt(variance) < 0.35
        directions.append(weight_CF[:, block.start + values.index("fr")])
    assert np.dot(*directions) / np.prod(np.linalg.norm(directions, axis=1)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("latent_dim", "share", "num_carried"),
    [
        (2, 0.85, 0),
        (100, 0.0, 0),
        (10, (NUM_COUNTS - 1) / 10, sum(SPEC.modalities.values())),
        (100, 0.5, NUM_COUNTS + NUM_CODE + sum(SPEC.modalities.values())),
    ],
)
def test_what_has_no_room_as_a_whole_is_left_to_the_code(latent_dim: int, share: float, num_carried: int) -> None:
    assert carried(latent_dim, share).shape == (num_carried, LAYOUT.width)


def directions(num_rows: int, deviations: np.ndarray) -> np.ndarray:
    """Scaled inputs whose tastes differ more along some axes; the second half of the rows has none in the last days."""
    rng = np.random.default_rng(6)
    x_BF = rng.normal(size=(num_rows, LAYOUT.width)).astype(np.float32)
    for name in ("behaviour_2d", "behaviour_7d", "behaviour_onboarding"):
        taste_BE = rng.normal(size=(num_rows, WIDTH)) * deviations
        x_BF[:, input_of(name) :][:, :WIDTH] = taste_BE / np.linalg.norm(taste_BE, axis=1, keepdims=True) * WIDTH**0.5
    x_BF[num_rows // 2 :, input_of("behaviour_2d") :][:, :WIDTH] = 0
    return x_BF


def test_whitening_damps_the_axes_in_which_users_differ_most() -> None:
    x_BF = directions(4000, np.linspace(3, 0.3, WIDTH))
    model = config.Model(latent_dim=100)
    whitening_EE = whitening_of(x_BF, LAYOUT, model)
    taste_BE = x_BF[:, input_of("behaviour_7d") :][:, :WIDTH].astype(np.float64)
    covariance_EE = np.cov(taste_BE.T) / np.cov(taste_BE.T).trace() * WIDTH
    expected_EE = scipy.linalg.inv(scipy.linalg.sqrtm(covariance_EE + 5.0 * np.eye(WIDTH)))
    np.testing.assert_allclose(whitening_EE, expected_EE, atol=1e-5)
    spread_E, before_E = ((taste_BE @ by_EE).std(axis=0) for by_EE in (whitening_EE, np.eye(WIDTH)))
    assert spread_E[0] / spread_E[-1] < before_E[0] / before_E[-1]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_tastes_are_left_as_they_are(rows: int) -> None:
    x_BF = np.vstack([directions(rows, np.ones(WIDTH)), np.zeros((5, LAYOUT.width), np.float32)])
    np.testing.assert_array_equal(whitening_of(x_BF, LAYOUT, config.Model(latent_dim=100)), np.eye(WIDTH))


def test_without_item_vectors_there_is_no_taste() -> None:
    layout = InputLayout.of(SPEC.model_copy(update={"modalities": {}}), LAYOUT.vocabulary)
    model = config.Model(latent_dim=100)
    assert carried_tastes(layout, model) == (0, 0)
    assert len(carried_inputs(layout, model)) == NUM_COUNTS + NUM_CODE


def test_without_room_for_a_taste_none_is_whitened() -> None:
    model = config.Model(latent_dim=100, carried_share=0)
    assert carried_tastes(LAYOUT, model) == (0, 0)
    assert whitening_of(directions(50, np.ones(WIDTH)), LAYOUT, model).shape == (0, 0)
    assert Autoencoder(LAYOUT, model).encode(torch.zeros(2, LAYOUT.width)).shape == (2, 100)


def test_a_carried_taste_is_the_sum_of_whitened_directions() -> None:
    model = config.Model(latent_dim=100)
    autoencoder = Autoencoder(LAYOUT, model)
    x_BF = directions(40, np.linspace(3, 0.3, WIDTH))
    as_it_was_BD = autoencoder.encode(torch.from_numpy(x_BF)).detach().numpy()
    whitening_EE = np.random.default_rng(7).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    autoencoder.whitening_EE = torch.from_numpy(whitening_EE)
    z_BD = autoencoder.encode(torch.from_numpy(x_BF)).detach().numpy()
    taste = slice(NUM_COUNTS, NUM_COUNTS + WIDTH)
    expected_BE = np.zeros((40, WIDTH), np.float32)
    for name in ("behaviour_2d", "behaviour_7d", "behaviour_onboarding"):
        place = np.s_[:, input_of(name) : input_of(name) + WIDTH]
        whitened_BE = x_BF[place] @ whitening_EE
        length_B = np.linalg.norm(whitened_BE, axis=1, keepdims=True)
        whitened_BE *= np.divide(WIDTH**0.5, length_B, out=np.zeros_like(length_B), where=length_B > 0)
        expected_BE += whitened_BE @ autoencoder.carried_CF.numpy()[taste][place].T
    np.testing.assert_allclose(z_BD[:, taste], expected_BE, atol=1e-4)
    np.testing.assert_allclose(np.delete(z_BD, taste, axis=1), np.delete(as_it_was_BD, taste, axis=1), atol=1e-5)


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

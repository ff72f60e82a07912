"""Linear readings: planted shares of explained variance, and the division of a score's variance by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from userrep.explanations.readings import attribute, read_blocks
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec

pytestmark = pytest.mark.fast

NUM = 6_000
HELD_OUT = np.arange(NUM) % 5 == 0
LAYOUT = InputLayout.of(
    FeatureSpec(
        windows_days=[7],
        modalities={"behaviour": 4},
        onboarding=False,
        registered_at=False,
        attributes=["country"],
        context=[],
    ),
    {"attribute_country": ["dk", "(other)"]},
)


def part(name: str) -> slice:
    return next(slice(block.start, block.stop) for block in LAYOUT.blocks if block.name == name)


def inputs(seed: int = 0) -> np.ndarray:
    """Return independent inputs with variance 1, all present."""
    x_NF = np.random.default_rng(seed).normal(size=(NUM, LAYOUT.width)).astype(np.float32)
    x_NF[:, part("flags")] = 1
    return x_NF


def test_a_planted_readout_has_its_known_r2() -> None:
    x_NF, random = inputs(), np.random.default_rng(1)
    signal = x_NF[:, part("num_events_7d")][:, 0]
    # z = x + noise of variance 3: the best linear reading of x explains 1 / (1 + 3) of its variance.
    z_ND = np.column_stack([signal + np.sqrt(3) * random.normal(size=NUM), random.normal(size=(NUM, 4))])
    found = {reading.block: reading for reading in read_blocks(LAYOUT, x_NF, z_ND.astype(np.float32), HELD_OUT)}
    assert found["num_events_7d"].r2 == pytest.approx(0.25, abs=0.04)
    assert found["weight_7d"].r2 == pytest.approx(0, abs=0.01)
    assert found["flags"].r2 is None  # they do not vary


def test_r2_of_a_block_is_over_all_its_numbers_as_scikit_learn_computes_it_on_held_out_users() -> None:
    x_NF, random = inputs(), np.random.default_rng(2)
    block_NK = x_NF[:, part("behaviour_7d")] * np.array([1, 2, 3, 4], np.float32)
    x_NF[:, part("behaviour_7d")] = block_NK
    z_ND = (block_NK[:, :2] @ random.normal(size=(2, 3)) + random.normal(size=(NUM, 3))).astype(np.float32)
    found = {reading.block: reading for reading in read_blocks(LAYOUT, x_NF, z_ND, HELD_OUT)}
    fitted = LinearRegression().fit(z_ND[~HELD_OUT], block_NK[~HELD_OUT])
    error = np.square(block_NK[HELD_OUT] - fitted.predict(z_ND[HELD_OUT])).sum()
    total = np.square(block_NK[HELD_OUT] - block_NK[HELD_OUT].mean(axis=0)).sum()
    assert found["behaviour_7d"].r2 == pytest.approx(1 - error / total, abs=0.003)


def test_only_users_who_have_a_block_are_read() -> None:
    x_NF, random = inputs(), np.random.default_rng(3)
    flag = next(block.flag for block in LAYOUT.blocks if block.name == "behaviour_7d")
    is_absent = random.uniform(size=NUM) < 0.6
    x_NF[is_absent, part("behaviour_7d")] = 0
    x_NF[is_absent, flag] = 0
    z_ND = x_NF[:, part("behaviour_7d")].copy()
    z_ND[is_absent] = random.normal(size=(is_absent.sum(), 4))  # would spoil the reading
    found = {reading.block: reading for reading in read_blocks(LAYOUT, x_NF, z_ND, HELD_OUT)}
    assert found["behaviour_7d"].num_users == NUM - is_absent.sum()
    assert found["behaviour_7d"].r2 == pytest.approx(1, abs=1e-4)
    few = np.zeros(NUM, bool)
    few[:30] = True
    x_NF[~few, flag] = 0
    assert {r.block: r.r2 for r in read_blocks(LAYOUT, x_NF, z_ND, HELD_OUT)}["behaviour_7d"] is None


def test_shares_are_covariances_of_the_parts_with_the_score_and_add_up() -> None:
    x_NF, random = inputs(), np.random.default_rng(4)
    # Two correlated blocks and noise: the parts' covariances with the score are known in closed form.
    x_NF[:, part("weight_7d")] = 0.6 * x_NF[:, part("num_events_7d")] + 0.8 * x_NF[:, part("weight_7d")]
    a, b = x_NF[:, part("num_events_7d")][:, 0], x_NF[:, part("weight_7d")][:, 0]
    score_N = (2 * a + 1 * b + random.normal(size=NUM)).astype(np.float64)
    variance = 4 + 1 + 2 * 2 * 1 * 0.6 + 1
    _, shares = attribute(LAYOUT, x_NF, score_N, HELD_OUT)
    assert shares["num_events_7d"] == pytest.approx((4 + 2 * 0.6) / variance, abs=0.03)
    assert shares["weight_7d"] == pytest.approx((1 + 2 * 0.6) / variance, abs=0.03)
    assert 1 - sum(shares.values()) == pytest.approx(1 / variance, abs=0.03)
    others = {name: share for name, share in shares.items() if name not in ("num_events_7d", "weight_7d")}
    assert max(map(abs, others.values())) < 0.01


def test_a_correlated_block_that_the_score_does_not_use_gets_no_share() -> None:
    x_NF = inputs()
    x_NF[:, part("weight_7d")] = 0.9 * x_NF[:, part("num_events_7d")] + 0.44 * x_NF[:, part("weight_7d")]
    _, shares = attribute(LAYOUT, x_NF, x_NF[:, part("num_events_7d")][:, 0].astype(np.float64), HELD_OUT)
    assert shares["num_events_7d"] == pytest.approx(1, abs=0.001)
    assert shares["weight_7d"] == pytest.approx(0, abs=0.001)


def test_a_block_that_corrects_another_has_a_negative_share() -> None:
    x_NF = inputs()
    x_NF[:, part("weight_7d")] = 0.8 * x_NF[:, part("num_events_7d")] + 0.6 * x_NF[:, part("weight_7d")]
    a, b = x_NF[:, part("num_events_7d")][:, 0], x_NF[:, part("weight_7d")][:, 0]
    _, shares = attribute(LAYOUT, x_NF, (a - 0.5 * b).astype(np.float64), HELD_OUT)
    covariance = -0.5 * (0.8 - 0.5) / (1 + 0.25 - 0.8)
    assert shares["weight_7d"] == pytest.approx(covariance, abs=0.03)


def test_a_constant_score_has_no_shares() -> None:
    _, shares = attribute(LAYOUT, inputs(), np.full(NUM, 3.0), HELD_OUT)
    assert set(shares.values()) == {0.0}

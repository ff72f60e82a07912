"""Random numbers as hashes of keys."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from userrep.synthetic.draws import drawn, keys_of, normal, uniform

pytestmark = pytest.mark.fast


def test_hashed_numbers_are_uniform_and_independent_between_purposes() -> None:
    keys = keys_of(7, np.arange(50_000))
    here, there = uniform(keys, "here"), uniform(keys, "there")
    assert np.histogram(here, bins=20, range=(0, 1))[0].min() > 0.9 * len(keys) / 20
    assert abs(np.corrcoef(here, there)[0, 1]) < 0.02
    assert abs(np.corrcoef(here[1:], here[:-1])[0, 1]) < 0.02


def test_a_key_depends_on_each_part_and_on_the_order_of_parts() -> None:
    keys = [keys_of(1, 2), keys_of(2, 1), keys_of(1), keys_of(1, 2, 0), keys_of(1, 3)]
    assert len({int(key[0]) for key in keys}) == 5
    together = keys_of(1, np.array([[2], [3]]), np.array([4, 5]))
    assert together[1, 0] == keys_of(1, 3, 4)[0]


def test_normal_numbers_have_the_moments_of_a_standard_normal() -> None:
    numbers = normal(keys_of(3, np.arange(50_000)), "taste")
    assert abs(numbers.mean()) < 0.02
    assert numbers.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(numbers) < 1) == pytest.approx(0.6827, abs=0.01)


@settings(deadline=None)
@given(u=st.floats(0, 1, exclude_min=True, exclude_max=True))
@example(u=0.25)
@example(u=0.75)
def test_a_column_is_drawn_in_proportion_to_its_share(u: float) -> None:
    shares = np.array([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]])
    assert drawn(shares, np.array([u, u])).tolist() == [0 if u <= 0.25 else 1 if u <= 0.75 else 2, 2]

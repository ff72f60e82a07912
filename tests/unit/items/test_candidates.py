"""The items that rows choose from: all that were sold, or a sample that stands for them."""

from collections import Counter
from datetime import date, timedelta

import numpy as np
import pytest

from tests.unit.features.test_training_rows import ITEMS, made, random_events, work  # noqa: F401  # fixtures
from userrep.items import candidates as module
from userrep.items.candidates import _shares, _with_means, read_candidates
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default


def read(work: RunContext, as_ofs: list[date], days: int = 2) -> dict[str, np.ndarray]:  # noqa: F811
    return read_candidates(work.tables, work.schedule.versions, as_ofs, days=days, dims={"own": 3}, seed=1)


def shares_of(found: dict[str, np.ndarray], place: int) -> dict[str, float]:
    """Return the share of each item, known by its vector."""
    by_vector = {tuple(np.float32(vector)): item for item, vector in ITEMS.items()}
    vectors, log_shares = found[f"vector_{place}"], found[f"log_share_{place}"]
    return {by_vector[tuple(vector)]: float(np.exp(s)) for vector, s in zip(vectors, log_shares, strict=True)}


def test_items_are_those_that_plain_python_finds_in_the_days_after(work: RunContext) -> None:  # noqa: F811
    as_ofs = work.schedule.training_as_ofs
    found = read(work, as_ofs)
    for place, as_of in enumerate(as_ofs):
        end = as_of + timedelta(days=2)
        sold = Counter(item for _, item, at in random_events(seed=1) if as_of <= at.date() < end)
        known = {item: num for item, num in sold.items() if item in ITEMS}
        expected = {item: num / sum(known.values()) for item, num in known.items()}
        assert shares_of(found, place) == pytest.approx(expected)
        assert len(expected) < len(sold)  # some have no vector
    again = read(work, as_ofs)
    assert all(np.array_equal(again[name], tensor) for name, tensor in found.items())


def test_a_date_without_sales_has_no_items(work: RunContext) -> None:  # noqa: F811
    day = work.schedule.inventory.first_day - timedelta(days=9)
    found = read(work, [work.schedule.training_as_ofs[0], day])
    assert found["vector_1"].shape == (0, 3)
    assert found["log_share_1"].shape == (0,)


def test_of_more_items_than_there_is_room_for_a_sample_is_taken(
    work: RunContext,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_ofs = work.schedule.training_as_ofs
    whole = [shares_of(read(work, as_ofs), place) for place in range(len(as_ofs))]
    monkeypatch.setattr(module, "MAX_ITEMS", 3)
    found = read(work, as_ofs)
    for place, shares in enumerate(whole):
        sample = shares_of(found, place)
        assert sample.keys() < shares.keys()
        assert len(found[f"vector_{place}"]) <= 3


def test_sums_over_a_sample_are_on_average_those_over_all_items() -> None:
    random = np.random.default_rng(3)
    weight_N, value_N = random.integers(1, 50, 400).astype(float), random.normal(2, 1, 400)
    estimates = []
    for _ in range(2000):
        key_N = random.exponential(size=400) / weight_N
        drawn = np.argsort(key_N)[:61]
        share_N, kept = _shares(weight_N[drawn], key_N[drawn], max_items=60)
        assert kept.sum() == 60
        estimates.append(share_N[kept] @ value_N[drawn][kept] / share_N[kept].sum())
    expected, spread = weight_N @ value_N / weight_N.sum(), np.std(estimates)
    assert spread < 0.2
    assert np.mean(estimates) == pytest.approx(expected, abs=4 * spread / np.sqrt(2000) + 0.005)


def test_an_item_that_lacks_a_modality_gets_its_mean() -> None:
    vector_CE = np.array([[1, 2, 8], [3, 4, 0], [5, 6, 2]], np.float32)
    has_CM = np.array([[True, True], [True, False], [True, True]])
    filled = _with_means(vector_CE, has_CM, np.array([0.6, 0.2, 0.2]), {"behaviour": 2, "content": 1})
    np.testing.assert_allclose(filled, [[1, 2, 8], [3, 4, 6.5], [5, 6, 2]])

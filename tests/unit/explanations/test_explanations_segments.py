"""Segments: planted clusters are found, keep their ids when the space is rotated, and match by their centers."""

import itertools

import numpy as np
import pytest
from scipy.stats import ortho_group

from userrep.errors import UsageError
from userrep.explanations.segments import fit_centers, ids_of, match, nearest, seeds

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]

SIZES = (500, 300, 150, 50)
DIM = 12


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors around four far centers, the segment of each, and the centers."""
    random = np.random.default_rng(seed)
    centers_SD = 6 * np.random.default_rng(99).normal(size=(len(SIZES), DIM))
    segment_N = np.repeat(np.arange(len(SIZES)), SIZES)
    z_ND = centers_SD[segment_N] + random.normal(size=(len(segment_N), DIM))
    return z_ND.astype(np.float32), segment_N, centers_SD


def test_planted_segments_are_found_again_largest_first() -> None:
    z_ND, segment_N, centers_SD = planted()
    found_SD = fit_centers(z_ND, len(SIZES))
    assert np.array_equal(nearest(z_ND, found_SD), segment_N)
    np.testing.assert_allclose(found_SD, centers_SD, atol=1)
    assert np.array_equal(fit_centers(z_ND, len(SIZES)), found_SD)  # the same every time


def test_the_nearest_center_is_that_of_brute_force() -> None:
    random = np.random.default_rng(3)
    z_ND, centers_SD = random.normal(size=(200, 5)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    distances = [[float(((z - center) ** 2).sum()) for center in centers_SD] for z in z_ND]
    assert nearest(z_ND, centers_SD).tolist() == [int(np.argmin(row)) for row in distances]


def test_segments_keep_their_ids_in_a_rotated_space_and_without_a_map_they_would_not() -> None:
    z_ND, segment_N, _ = planted()
    before_SD = fit_centers(z_ND, len(SIZES))
    rotation_DD = ortho_group.rvs(DIM, random_state=5).astype(np.float32)
    moved_ND = (planted(seed=1)[0] @ rotation_DD.T).astype(np.float32)  # new vectors, in a new space

    def to_previous(vectors_ND: np.ndarray) -> np.ndarray:
        return vectors_ND @ rotation_DD

    fresh_SD = fit_centers(moved_ND, len(SIZES))[::-1]  # in another order
    matched = match(to_previous(fresh_SD), before_SD)
    assert matched == {0: 3, 1: 2, 2: 1, 3: 0}
    ids = ids_of(len(SIZES), matched, ["s01", "s02", "s03", "s04"], 4)
    assert np.array_equal(np.array(ids)[nearest(moved_ND, fresh_SD)], np.array(["s01", "s02", "s03", "s04"])[segment_N])
    seeded_SD = fit_centers(moved_ND, len(SIZES), seeds(moved_ND, before_SD, to_previous))
    assert np.array_equal(nearest(moved_ND, seeded_SD), segment_N)
    assert match(fresh_SD, before_SD) != matched


def test_the_matching_has_the_smallest_sum_of_squared_distances() -> None:
    random = np.random.default_rng(7)
    before_PQ = 3 * random.normal(size=(5, 3))
    now_SQ = before_PQ[random.permutation(5)] + 0.1 * random.normal(size=(5, 3))

    def cost(order: tuple[int, ...]) -> float:
        return float(sum(((now_SQ[s] - before_PQ[p]) ** 2).sum() for s, p in enumerate(order)))

    best = min(itertools.permutations(range(5)), key=cost)
    assert match(now_SQ.astype(np.float32), before_PQ.astype(np.float32)) == dict(enumerate(best))


def test_a_segment_far_from_all_previous_ones_is_new_and_ids_are_never_used_twice() -> None:
    before_PQ = np.array([[0, 0], [10, 0], [20, 0]], np.float32)
    now_SQ = np.array([[20, 1], [1, 0], [2, 1]], np.float32)  # two near the first, none near the second
    matched = match(now_SQ, before_PQ)
    assert matched == {0: 2, 1: 0}
    assert ids_of(3, matched, ["s01", "s02", "s05"], 7) == ["s05", "s01", "s08"]
    assert ids_of(2, {}, [], 0) == ["s01", "s02"]


def test_a_previous_center_without_users_gives_no_seeds() -> None:
    z_ND, _, centers_SD = planted()
    far_SD = np.vstack([centers_SD, np.full((1, DIM), 1e3)]).astype(np.float32)
    assert seeds(z_ND, far_SD, lambda vectors: vectors) is None
    found = seeds(z_ND, centers_SD.astype(np.float32), lambda vectors: vectors)
    assert found is not None
    np.testing.assert_allclose(found[0], z_ND[: SIZES[0]].mean(axis=0), atol=1e-3)


def test_more_segments_than_users_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--segments 5: more than the 3 users\. Choose fewer"):
        fit_centers(np.eye(3, dtype=np.float32), 5)

"""Ranges of user buckets: they are half-open, cover all buckets, and are read from names, footers and shares."""

import itertools

import pytest

from userrep.store.buckets import buckets_of_share, partition_values, power_of_two, range_of, range_of_slice

pytestmark = pytest.mark.fast

ALL = (0, 1_048_576)


@pytest.mark.parametrize("num_slices", [1, 2, 16])
def test_slices_cover_all_buckets_once_and_in_order(num_slices: int) -> None:
    ranges = [range_of(number, num_slices) for number in range(num_slices)]
    assert (ranges[0].start, ranges[-1].stop) == ALL
    assert all(earlier.stop == later.start for earlier, later in itertools.pairwise(ranges))
    assert len({stop - start for start, stop in ranges}) == 1


def test_a_slice_is_found_by_its_name() -> None:
    assert range_of_slice("3-of-16") == (196_608, 262_144)
    assert range_of_slice("0-of-1") == ALL
    assert range_of_slice("10-of-32") == (327_680, 360_448)


@pytest.mark.parametrize(
    ("share", "below"),
    [(0.0, 0), (1e-9, 1), (0.25, 262_144), (0.2500001, 262_145), (1.0, 1_048_576), (7.0, 1_048_576)],
)
def test_a_share_of_users_is_rounded_up_to_whole_buckets_and_never_exceeds_them_all(share: float, below: int) -> None:
    assert buckets_of_share(share) == below


@pytest.mark.parametrize(
    ("at_least", "power"),
    [(-1, 1), (0, 1), (1, 1), (1.01, 2), (2, 2), (2.5, 4), (4, 4), (5, 8), (2**20, 2**20), (2**20 + 1, 2**20)],
)
def test_the_number_of_slices_is_the_next_power_of_two_and_at_most_the_number_of_buckets(
    at_least: float, power: int
) -> None:
    assert power_of_two(at_least) == power


def test_partition_values_are_unquoted_and_read_from_folders_only() -> None:
    path = "file:/data/as_of=2024-05-01/user_slice=3-of-16/name=a%2Fb%20c/part=1.parquet"
    assert partition_values(path) == {"as_of": "2024-05-01", "user_slice": "3-of-16", "name": "a/b c"}

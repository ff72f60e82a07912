"""XXH64 over whole columns agrees with the xxhash library, and buckets agree with Spark's formula."""

import struct

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.store.xxhash import bucket_of, hash64, mixed

pytestmark = pytest.mark.fast

TEXTS = st.text(st.sampled_from("aZ0 é日😀\0"), max_size=120)
SEEDS = st.sampled_from([0, 1, 42, 2**63, 2**64 - 1])


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(TEXTS, max_size=20), seed=SEEDS)
def test_hashes_of_random_texts_are_those_of_the_xxhash_library(texts: list[str], seed: int) -> None:
    expected = [xxhash.xxh64_intdigest(text.encode(), seed=seed) for text in texts]
    assert hash64(pa.array(texts, pa.string()), seed=seed).tolist() == expected


def test_every_length_up_to_four_stripes_is_hashed_correctly_next_to_texts_of_other_lengths() -> None:
    texts = ["".join(chr(97 + k % 26) for k in range(length)) for length in range(130)]
    expected = [xxhash.xxh64_intdigest(text.encode()) for text in texts]
    assert hash64(pa.array(texts)).tolist() == expected
    assert [hash64(pa.array([text]))[0] for text in texts] == expected


def test_a_slice_of_a_column_is_hashed_as_its_own_texts() -> None:
    texts = ["left out", "user-1", "", "x" * 40, "left out too"]
    assert hash64(pa.array(texts)[1:4]).tolist() == hash64(pa.array(texts[1:4])).tolist()


def test_published_test_vectors_of_xxh64_are_reproduced() -> None:
    assert hash64(pa.array(["", "abc"])).tolist() == [0xEF46DB3751D8E999, 0x44BC2CF5AD770999]


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(TEXTS, max_size=20))
def test_a_bucket_is_the_low_20_bits_of_sparks_xxhash64_of_the_text_and_the_number_5381(texts: list[str]) -> None:
    """Spark hashes the first column with seed 42 and each further one with the hash so far as its seed."""
    of_texts = [xxhash.xxh64_intdigest(text.encode(), seed=42) for text in texts]
    expected = [xxhash.xxh64_intdigest(struct.pack("<i", 5381), seed=seed) % 2**20 for seed in of_texts]
    buckets = bucket_of(pa.array(texts, pa.string()))
    assert buckets.tolist() == expected
    assert buckets.dtype == np.int32


def test_mixed_numbers_are_the_output_of_splitmix64() -> None:
    """The first three numbers of SplitMix64 with seed 0: its finalizer of multiples of the golden ratio."""
    states = np.arange(4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mixed(states).tolist() == [0, 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]

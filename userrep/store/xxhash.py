"""Vectorized XXH64 that matches Spark's ``xxhash64``, to compute buckets of users and items without Spark.

Each step is applied to all rows that are long enough for it, so the cost depends on the longest text and the number of
rows, not on the number of different lengths. Shapes: N texts; L texts of at least 32 bytes.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.store.buckets import HASH_SEED, NUM_BUCKETS

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip
_MASK = 2**64 - 1
_ZERO = np.uint64(0)
_SPARK_SEED = 42  # of Spark's function xxhash64
_STRIPE = 32  # bytes that the four lanes consume per round

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]


def bucket_of(texts: pa.Array) -> NDArray[np.int32]:
    """Return the bucket of each user id or item id, equal to ``buckets.bucket_column``. ``texts``: string, no nulls."""
    h_N = hash64(texts, seed=_SPARK_SEED) + (_P5 + 4 & _MASK)
    h_N ^= HASH_SEED * _P1 & _MASK
    h_N = _rotated(h_N, 23) * _P2 + _P3
    return (_avalanche(h_N) & (NUM_BUCKETS - 1)).astype(np.int32)


def hash64(texts: pa.Array, *, seed: int = 0) -> Hashes:
    """Return XXH64 of the UTF-8 bytes of each text. ``texts``: string, no nulls. Cost: 50 ns per text of 8 bytes."""
    data, at_N, length_N = _bytes_of(texts)
    words, halves = _view(data, "<u8"), _view(data, "<u4")
    h_N = np.full(len(at_N), seed + _P5 & _MASK, np.uint64)
    long_L = np.flatnonzero(length_N >= _STRIPE)
    if len(long_L):
        h_N[long_L] = _stripes(words, at_N[long_L], length_N[long_L] // _STRIPE, seed)
        at_N[long_L] += length_N[long_L] // _STRIPE * _STRIPE
    h_N += length_N.view(np.uint64)
    for k in range(3):
        rows = np.flatnonzero((length_N & 31) >> 3 > k)
        h_N[rows] = _rotated(h_N[rows] ^ _round(_ZERO, words[at_N[rows]]), 27) * _P1 + _P4
        at_N[rows] += 8
    rows = np.flatnonzero(length_N & 4)
    h_N[rows] = _rotated(h_N[rows] ^ halves[at_N[rows]].astype(np.uint64) * _P1, 23) * _P2 + _P3
    at_N[rows] += 4
    for k in range(3):
        rows = np.flatnonzero((length_N & 3) > k)
        h_N[rows] = _rotated(h_N[rows] ^ data[at_N[rows]].astype(np.uint64) * _P5, 11) * _P1
        at_N[rows] += 1
    return _avalanche(h_N)


def mixed(values_N: Hashes, out: Hashes | None = None) -> Hashes:
    """Mix the bits of 64-bit values with a bijection, the finalizer of SplitMix64.

    Returns ``out``, which may be ``values_N`` itself, or a new array.
    """
    shifted_N = values_N >> np.uint64(30)
    h_N: Hashes = np.bitwise_xor(values_N, shifted_N, out=out)
    for factor, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        h_N *= np.uint64(factor)
        h_N ^= np.right_shift(h_N, np.uint64(shift), out=shifted_N)
    return h_N


def _stripes(words: Hashes, at_L: Offsets, num_L: Offsets, seed: int) -> Hashes:
    """Return the hash state after the whole stripes of long texts. ``num_L``: number of stripes per text."""
    lanes = [np.full(len(at_L), start & _MASK, np.uint64) for start in (seed + _P1 + _P2, seed + _P2, seed, seed - _P1)]
    for stripe in range(int(num_L.max())):
        rows = np.flatnonzero(num_L > stripe)
        for k, lane_L in enumerate(lanes):
            lane_L[rows] = _round(lane_L[rows], words[at_L[rows] + (_STRIPE * stripe + 8 * k)])
    h_L = np.zeros(len(at_L), np.uint64)
    for lane_L, by in zip(lanes, (1, 7, 12, 18), strict=True):
        h_L += _rotated(lane_L, by)
    for lane_L in lanes:
        h_L = (h_L ^ _round(_ZERO, lane_L)) * _P1 + _P4
    return h_L


def _round(lane: Hashes | np.uint64, words: Hashes) -> Hashes:
    return _rotated(words * _P2 + lane, 31) * _P1


def _rotated(values: Hashes, by: int) -> Hashes:
    return values << np.uint64(by) | values >> np.uint64(64 - by)


def _folded(values: Hashes, by: int) -> Hashes:
    return values ^ values >> np.uint64(by)


def _avalanche(h_N: Hashes) -> Hashes:
    return _folded(_folded(_folded(h_N, 33) * _P2, 29) * _P3, 32)


def _bytes_of(texts: pa.Array) -> tuple[NDArray[np.uint8], Offsets, Offsets]:
    """Return the bytes of all texts, and the offset and length of each text."""
    _, offsets, content = texts.buffers()
    if not len(texts):  # the buffers may be missing
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(content or b"", np.uint8), ends[:-1].copy(), np.diff(ends)


def _view(data: NDArray[np.uint8], kind: str) -> Any:
    """Return a view of the bytes as overlapping words, one starting at each byte."""
    width = np.dtype(kind).itemsize
    return np.ndarray((max(0, len(data) - width + 1),), kind, data, strides=(1,))

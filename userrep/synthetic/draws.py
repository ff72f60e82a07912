"""Random numbers as hashes of keys, so that no generator carries state from one user to the next."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep.store.xxhash import mixed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]


def keys_of(*parts: Any) -> Keys:
    """Hash integers (arrays or scalars, broadcast together) into 64-bit keys (the finalizer of SplitMix64)."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mixed(key + np.uint64(0x9E3779B97F4A7C15) ^ np.atleast_1d(np.asarray(part)).astype(np.uint64))
    return key


def uniform(keys: Keys, purpose: str) -> Floats:
    """Return one number in (0, 1) per key, independent between purposes."""
    salt = np.uint64(zlib.crc32(purpose.encode()) * 0x9E3779B97F4A7C15 % 2**64)
    high_bits: Floats = (mixed(keys ^ salt) >> np.uint64(11)).astype(np.float64)
    return (high_bits + 0.5) * 2.0**-53


def normal(keys: Keys, purpose: str) -> Floats:
    """Return one standard normal number per key (Box and Muller)."""
    radius = np.sqrt(-2 * np.log(uniform(keys, purpose + ".radius")))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(keys, purpose + ".angle")))


def drawn(shares: Floats, u: Floats) -> Ints:
    """Draw a column for each row of ``shares`` (each sums to one), using the uniform numbers ``u``."""
    return np.asarray((np.cumsum(shares, axis=1)[:, :-1] < u[:, None]).sum(axis=1), dtype=np.int64)

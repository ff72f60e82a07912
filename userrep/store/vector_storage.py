"""Storage types of vectors: float32, float16, and int8 with a scale per dimension.

Tables store lists of float32 for every type. A smaller type rounds the numbers when they are encoded, to those that it
can represent, so all readers get decoded vectors. Parquet's dictionaries make files of rounded numbers small
(parquet_writer.py). Exports contain the type itself.

An int8 scale is a power of two, fixed for a space. Products and quotients are then exact, so rounding twice gives the
same bits as rounding once, and all dimensions share most of their numbers, which keeps the dictionary small.
docs/decisions/0016 has the measurements.

Shapes: N vectors of D numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.config import Storage
from userrep.errors import UsageError
from userrep.store.arrow import combined, stacked

Floats32 = NDArray[np.float32]

STORAGE, SCALES = "userrep_storage", "userrep_scales"  # metadata keys of an exported column
LARGEST_HALF = 65504.0
MOST_STEPS = 127  # of int8, on each side of zero
STORED = "embedding_"  # start of the names of the embedding in other storage types, in evaluations
_LOOKED_AT = 256  # rows that decide whether vectors get a dictionary
_COLUMN = "embedding"
_COVERED = 0.999  # share of the numbers of a dimension that must not be clipped
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-24, 2.0**8  # with these, every int8 number is also a float16 number


def int8_scales(z_ND: Floats32) -> list[float]:
    """Return the int8 scale of each dimension: the smallest power of two that covers 99.9 % of the vectors' numbers.

    ``z_ND``: a sample of vectors, a few thousand.
    """
    covered_D = np.quantile(np.abs(z_ND.astype(np.float64)), _COVERED, axis=0)
    exponent_D = np.ceil(np.log2(np.maximum(covered_D / MOST_STEPS, _SMALLEST_SCALE)))
    return np.minimum(2.0**exponent_D, _LARGEST_SCALE).tolist()  # type: ignore[no-any-return]


def is_vector(field: pa.Field) -> bool:
    """Return whether a column contains lists of float32."""
    return bool(pa.types.is_list(field.type) and pa.types.is_float32(field.type.value_type))


def rounded_vectors(rows: pa.Table) -> list[str]:
    """Return the Parquet columns of vectors whose numbers are rounded, by a look at the first rows.

    They repeat a few thousand numbers, so a dictionary halves their size or better. Other vectors hardly repeat any.
    """
    first = rows.slice(0, _LOOKED_AT)
    vectors = [field.name for field in first.schema if is_vector(field)]
    return [f"{name}.list.element" for name in vectors if _is_rounded(combined(first[name]).flatten().to_numpy(False))]


def _is_rounded(numbers: Floats32) -> bool:
    """Return whether all numbers are numbers of float16, which those of int8 are too."""
    with np.errstate(over="ignore"):
        return bool(len(numbers) and (numbers == numbers.astype(np.float16)).all())


def own_metadata(field: pa.Field) -> dict[bytes, bytes]:
    """Return what a column's metadata says about its storage type."""
    return {key: value for key, value in (field.metadata or {}).items() if key in (STORAGE.encode(), SCALES.encode())}


@dataclass(frozen=True)
class VectorStorage:
    """A storage type with the scales of one space. ``scale_D`` is None unless the type is int8."""

    name: Storage = "float32"
    scale_D: Floats32 | None = None

    @classmethod
    def of(cls, name: Storage, int8_scales: Sequence[float]) -> "VectorStorage":
        """Return a type for vectors of the space with these scales. Raises UsageError for an unknown name."""
        if name not in get_args(Storage):
            raise UsageError(f"storage: expected one of {', '.join(get_args(Storage))}, got {name!r}.")
        return cls(name, np.array(int8_scales, np.float32)) if name == "int8" else cls(name)

    def rounded(self, z_ND: Floats32) -> Floats32:
        """Round numbers to the nearest that the type has, ties to even, and clip them. NaN stays NaN.

        The error is at most half a unit in the last place of float16, or half a scale of int8.
        """
        if self.scale_D is not None:
            steps_ND = np.clip(np.rint(z_ND / self.scale_D), -MOST_STEPS, MOST_STEPS)
            rounded_ND: Floats32 = steps_ND * self.scale_D + np.float32(0)  # turns -0.0 into 0.0
            return rounded_ND
        if self.name == "float16":
            return np.clip(z_ND, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)
        return z_ND

    def num_at_limit(self, z_ND: Floats32) -> int:
        """Count rounded numbers at the type's limit: those that were clipped, or less than half a step below it."""
        if self.name == "float32":
            return 0
        return int((np.abs(z_ND) >= (LARGEST_HALF if self.scale_D is None else MOST_STEPS * self.scale_D)).sum())

    def in_table(self, rows: pa.Table) -> tuple[pa.Table, int]:
        """Convert the lists of the column ``embedding``; return the table and how many numbers are at the limit.

        They become lists of halffloat, or of int8, which are numbers of scales. Nulls stay null. The metadata of the
        column has the name of the type and, for int8, the scales as a JSON list. float32: no change, and none at the
        limit.
        """
        if self.name == "float32":
            return rows, 0
        vectors = combined(rows[_COLUMN])
        present = vectors.drop_null()
        dim = len(self.scale_D) if self.scale_D is not None else len(present[0]) if len(present) else 1
        z_ND = self.rounded(stacked(present, dim))
        numbers = z_ND.astype(np.float16) if self.scale_D is None else (z_ND / self.scale_D).astype(np.int8)
        ends = np.cumsum(np.where(vectors.is_valid().to_numpy(zero_copy_only=False), dim, 0))
        offsets = pa.array(np.append(0, ends).astype(np.int32))
        lists = pa.ListArray.from_arrays(offsets, pa.array(numbers.ravel()), mask=vectors.is_null())
        scales = {} if self.scale_D is None else {SCALES: json.dumps(self.scale_D.tolist())}
        field = pa.field(_COLUMN, lists.type, metadata={STORAGE: self.name, **scales})
        return rows.set_column(rows.schema.get_field_index(_COLUMN), field, lists), self.num_at_limit(z_ND)

    @property
    def column_types(self) -> dict[str, str]:
        """The name of the type of an exported column, by column; empty for float32."""
        return {} if self.name == "float32" else {_COLUMN: f"array<{self.name}>"}

"""The supported releases of Spark: the JARs of each, and two functions that Spark 4.0 lacks.

``repartition_by_number`` and ``arrow_udf`` give the same rows on all releases, in the same partitions and order.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyspark
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas import functions as pandas_functions

if TYPE_CHECKING:
    from pyspark.sql.udf import UserDefinedFunction

Arrays = Iterator[tuple[pa.Array, ...]]  # of a batch of rows: one array per argument
_SEED = 42  # of Spark's hash partitioning


class Release(NamedTuple):
    """The JARs that belong to a release of Spark, as Maven coordinates or versions."""

    delta: str
    kafka: str  # version of the Kafka source. Not all have a token provider on Maven Central
    hadoop: str  # version of Hadoop in Spark's package
    aws_sdk: str


_RELEASES = {
    "4.0": Release("io.delta:delta-spark_2.13:4.0.1", "4.0.0", "3.4.1", "2.24.6"),
    "4.1": Release("io.delta:delta-spark_4.1_2.13:4.1.0", "4.1.1", "3.4.2", "2.29.52"),
    "4.2": Release("io.delta:delta-spark_4.2_2.13:4.4.0", "4.2.0", "3.5.0", "2.35.4"),
}


def release_of(version: str) -> tuple[str, Release]:
    """Return the supported series of Spark that a version belongs to, such as 4.1, and its JARs.

    The newest series for all other versions.
    """
    series = ".".join(version.split(".")[:2])
    series = series if series in _RELEASES else max(_RELEASES)
    return series, _RELEASES[series]


SERIES, RELEASE = release_of(pyspark.__version__)


def repartition_by_number(rows: DataFrame, num_partitions: int, number: Column) -> DataFrame:
    """Shuffle each row to the partition with its number, an int from 0 to ``num_partitions - 1``, not null."""
    if hasattr(DataFrame, "repartitionById"):  # from Spark 4.1 on
        return rows.repartitionById(num_partitions, number)
    return rows.repartition(num_partitions, key_of_partition(num_partitions, number))


def key_of_partition(num_partitions: int, number: Column) -> Column:
    """Return an int that Spark's hash partitioning sends to partition ``number`` of ``num_partitions``.

    Driver memory and size of the plan: one int per partition.
    """
    keys = F.split(F.lit(",".join(map(str, _keys(num_partitions)))), ",").cast("array<int>")  # one constant of the plan
    return F.element_at(keys, number + 1)


@lru_cache(maxsize=32)
def _keys(num_partitions: int) -> NDArray[np.int32]:
    """Return an int for each partition whose Murmur3 hash modulo the number of partitions is that partition."""
    from sklearn.utils import murmurhash3_32  # only Spark 4.0 needs it here

    key_P, start = np.full(num_partitions, -1, np.int32), 0
    while (key_P < 0).any():
        keys = np.arange(start, start + 4 * num_partitions + 64, dtype=np.int32)
        key_P[np.mod(murmurhash3_32(keys, seed=_SEED), num_partitions)] = keys
        start += len(keys)
    return key_P


def arrow_udf(
    function: Callable[[Arrays], Iterator[pa.Array]], returns: str, *arguments: pa.DataType
) -> "UserDefinedFunction":
    """Return a UDF of Arrow arrays: ``function`` gets a task's batches and returns one array for each.

    returns : DDL of the result's type. arguments : types of the arrays that ``function`` gets.

    Cost: on Spark 4.0, all values also pass through pandas.
    """

    def on_arrays(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        return function(_typed(batches, arguments))

    if hasattr(pandas_functions, "arrow_udf"):  # from Spark 4.1 on
        return cast("UserDefinedFunction", pandas_functions.arrow_udf(on_arrays, returns))  # type: ignore[call-overload]
    return cast("UserDefinedFunction", pandas_functions.pandas_udf(on_series(function, arguments), returns))  # type: ignore[call-overload]


def on_series(
    function: Callable[[Arrays], Iterator[pa.Array]], arguments: tuple[pa.DataType, ...]
) -> Callable[[Any], Iterator[Any]]:
    """Return ``function`` for batches of pandas Series. A missing value is a null of the argument's type."""
    import pandas as pd  # only Spark 4.0 needs it here

    def convert(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.Series]:
        for result in function(_typed(batches, arguments)):
            has_inner_nulls = pa.types.is_nested(result.type) and result.flatten().null_count > 0
            yield pd.Series(result.to_pylist()) if has_inner_nulls else result.to_pandas()  # pandas makes them NaN

    return convert


def _typed(batches: Iterator[Any], kinds: tuple[pa.DataType, ...]) -> Arrays:
    """Yield the columns of each batch, Arrow arrays or pandas Series, as arrays of these types."""
    for batch in batches:
        columns = batch if isinstance(batch, tuple) else (batch,)  # Spark does not wrap the column of a single argument
        yield tuple(
            column.cast(kind) if isinstance(column, pa.Array) else pa.Array.from_pandas(column, type=kind)
            for column, kind in zip(columns, kinds, strict=True)
        )

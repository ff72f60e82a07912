"""Arrays and maps on their way from Spark to Python."""

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T


def empty(kind: T.ArrayType | T.MapType | T.DataType) -> Column:
    """Return an empty array or map of a type.

    Spark 4 takes 20 us per row to hand runs of null arrays or maps to Python (its Arrow writer visits the earlier rows
    of the batch again for each null) and 1 us for empty ones, so large frames carry empty values instead of nulls.
    """
    return (F.create_map() if isinstance(kind, T.MapType) else F.array()).cast(kind)

"""Training rows of a space: user features of many as-of dates, scaled, split and shuffled into shards."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from userrep.features.layout import UNKNOWN, InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import Future
from userrep.spark.sums import sum_over
from userrep.store.arrow import packed

VOCABULARY_SIZE = 64  # values per attribute or context column; all others become (other)
VALID_DATES_SHARE = 0.1


def valid_dates(as_ofs: list[date]) -> list[date]:
    """Return the validation dates: the last tenth of the training dates, at least one; none of one or two dates."""
    return sorted(as_ofs)[-max(1, round(len(as_ofs) * VALID_DATES_SHARE)) :] if len(as_ofs) > 2 else []


def with_split(features: DataFrame, *, held_out_share: float, later_dates: list[date], seed: int) -> DataFrame:
    """Add split (train | valid_users | valid_dates) and row_key, a reproducible random order of the rows.

    A held-out user is held out at all dates, including the validation dates.
    """
    user = F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(10_000))
    split = (
        F.when(user < round(held_out_share * 10_000), "valid_users")
        .when(F.col("as_of").isin(later_dates), "valid_dates")
        .otherwise("train")
    )
    return features.withColumns({"split": split, "row_key": F.xxhash64("user_id", "as_of", F.lit(seed))})


def vocabulary(rows: DataFrame, spec: FeatureSpec) -> dict[str, list[str]]:
    """Return the most frequent values of each attribute and of the context, followed by ``(other)``.

    Cost: one pass over these columns, and a shuffle of the number of rows of each value; at most 64 values of each
    column reach the driver.
    """
    values: dict[str, Column] = {f"attribute_{name}": F.array(f"attribute_{name}") for name in spec.attributes}
    if spec.context_column:
        values[spec.context_column] = F.coalesce(F.map_keys(spec.context_column), F.array().cast("array<string>"))
    if not values:
        return {}
    pairs = F.inline(F.concat(*(_named(name, column) for name, column in values.items())))
    counts = rows.select(pairs).where("value IS NOT NULL").groupBy("name", "value").count()
    rank = F.row_number().over(Window.partitionBy("name").orderBy(F.desc("count"), "value"))
    top = counts.withColumn("rank", rank).where(F.col("rank") <= VOCABULARY_SIZE).collect()
    return {
        name: [*sorted(row.value for row in top if row.name == name and row.value != UNKNOWN), UNKNOWN]
        for name in values
    }


def _named(name: str, values: Column) -> Column:
    return F.transform(values, lambda value: F.struct(F.lit(name).alias("name"), value.alias("value")))


def fit_scaler(rows: DataFrame, layout: InputLayout) -> Scaler:
    """Fit center and scale on the split ``train``. Cost: one pass; 2F numbers per partition reach the driver."""
    sums = sum_over(rows.where("split = 'train'"), lambda batch: Moments.of(layout.raw(batch))._asdict())
    return Scaler.fit(layout, Moments(**sums) if sums else Moments.of(np.empty((0, layout.width), np.float32)))


def training_rows(
    rows: DataFrame,
    futures: Sequence[tuple[Future, DataFrame]],
    layout: InputLayout,
    scaler: Scaler,
    *,
    space_id: str,
    num_shards: int,
) -> DataFrame:
    """Scale the rows, append their targets to the inputs, and assign them to shards, shuffled within each shard.

    Parameters
    ----------
    rows : user features with split and row_key. futures : each with the features of the dates on which it ends, and
    split and row_key of the dates on which it begins.

    Returns
    -------
    Rows of ``training_rows``. Cost: one shuffle of the scaled rows (4F bytes each) and of the targets of active users
    (at most 4T bytes each): inputs and targets of a row are joined in the shard that they are assigned to anyway.
    """
    pieces = _packed(rows, lambda batch: scaler.apply(layout, layout.raw(batch)), "x")
    for future, later in futures:
        active = later.where(future.is_active).select("split", "row_key", "as_of", *future.columns)
        targets_of_active = _packed(active, future.targets, _column(future))
        pieces = pieces.unionByName(targets_of_active, allowMissingColumns=True)
    shard = F.pmod(F.xxhash64("row_key"), F.lit(num_shards)).cast("int")
    keys = ("split", "shard", "row_key")
    sharded = pieces.withColumn("shard", shard).repartition("split", "shard")
    if futures:
        targets = [future for future, _ in futures]
        joined = sharded.groupBy(*keys).agg(*(F.max(name).alias(name) for name in ("x", *map(_column, targets))))
        filled = [F.coalesce(_column(f), F.lit(bytearray(f.absent_W().astype("<f4").tobytes()))) for f in targets]
        sharded = joined.where("x IS NOT NULL").withColumn("x", F.concat("x", *filled))  # null: not yet a user
    return sharded.select(F.lit(space_id).alias("space_id"), *keys, "x").sortWithinPartitions(*keys)


def _column(future: Future) -> str:
    return f"y_{future.days}d"


def _packed(rows: DataFrame, numbers_of: Callable[[pa.RecordBatch], NDArray[np.float32]], name: str) -> DataFrame:
    """Return split, row_key and one column with the packed numbers of each row."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = [batch.column("split"), batch.column("row_key"), packed(numbers_of(batch))]
            yield pa.RecordBatch.from_arrays(columns, ["split", "row_key", name])

    return rows.mapInArrow(pack, f"split STRING, row_key BIGINT, {name} BINARY")

"""From user features of many as-of dates to the rows that a space is trained on: scaled, split, in shuffled order."""

from collections.abc import Iterable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.arrow import packed
from userrep.features.layout import UNKNOWN, InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec

VOCABULARY_SIZE = 64  # values per attribute or context column; the others count as one
VALID_DATES_SHARE = 0.1


def valid_dates(as_ofs: list[date]) -> list[date]:
    """Return the last tenth of the training dates (one at least, none of one or two): kept for validation."""
    return sorted(as_ofs)[-max(1, round(len(as_ofs) * VALID_DATES_SHARE)) :] if len(as_ofs) > 2 else []


def with_split(features: DataFrame, *, held_out_share: float, later_dates: list[date], seed: int) -> DataFrame:
    """Add split (train | valid_users | valid_dates) and row_key, which orders the rows by chance, the same every time.

    A held-out user is held out at all dates, the validation dates included.
    """
    user = F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(10_000))
    split = (
        F.when(user < round(held_out_share * 10_000), "valid_users")
        .when(F.col("as_of").isin(later_dates), "valid_dates")
        .otherwise("train")
    )
    return features.withColumns({"split": split, "row_key": F.xxhash64("user_id", "as_of", F.lit(seed))})


def vocabulary(rows: DataFrame, spec: FeatureSpec) -> dict[str, list[str]]:
    """Return the most frequent values of each attribute and of the context, and ``(other)``.

    Cost: one small job per attribute; at most 64 values of each reach the driver.
    """
    columns: dict[str, Column] = {f"attribute_{name}": F.col(f"attribute_{name}") for name in spec.attributes}
    if spec.context_column:
        columns[spec.context_column] = F.explode(F.map_keys(spec.context_column))
    found = {}
    for name, values in columns.items():
        counts = rows.select(values.alias("value")).where("value IS NOT NULL").groupBy("value").count()
        top = counts.orderBy(F.desc("count"), "value").limit(VOCABULARY_SIZE).collect()
        found[name] = [*sorted(row.value for row in top if row.value != UNKNOWN), UNKNOWN]
    return found


def fit_scaler(rows: DataFrame, layout: InputLayout) -> Scaler:
    """Fit centre and scale on the split ``train``. Cost: one pass; 2F numbers per partition reach the driver."""

    def moments(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        num_rows, sum_F, sum_squares_F = 0, np.zeros(layout.width), np.zeros(layout.width)
        for batch in batches:
            part = Moments.of(layout.raw(batch))
            num_rows, sum_F, sum_squares_F = (
                num_rows + part.num_rows,
                sum_F + part.sum_F,
                sum_squares_F + part.sum_squares_F,
            )
        yield pa.RecordBatch.from_pydict({"num_rows": [num_rows], "sums": [sum_F], "squares": [sum_squares_F]})

    parts = (
        rows.where("split = 'train'")
        .mapInArrow(moments, "num_rows BIGINT, sums ARRAY<DOUBLE>, squares ARRAY<DOUBLE>")
        .collect()
    )
    total = Moments(
        num_rows=sum(part.num_rows for part in parts),
        sum_F=np.sum([part.sums for part in parts], axis=0),
        sum_squares_F=np.sum([part.squares for part in parts], axis=0),
    )
    return Scaler.fit(layout, total)


def training_rows(rows: DataFrame, layout: InputLayout, scaler: Scaler, *, space_id: str, num_shards: int) -> DataFrame:
    """Scale the rows and deal them into shards, in shuffled order within each.

    Returns
    -------
    Rows of ``training_rows``. Cost: one shuffle of the scaled rows, 4F bytes each.
    """

    def scaled(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            x_BF = scaler.apply(layout, layout.raw(batch))
            yield pa.RecordBatch.from_arrays(
                [batch.column("split"), batch.column("row_key"), packed(x_BF)], ["split", "row_key", "x"]
            )

    inputs = rows.mapInArrow(scaled, "split STRING, row_key BIGINT, x BINARY")
    shard = F.pmod(F.xxhash64("row_key"), F.lit(num_shards)).cast("int")
    dealt = inputs.select(F.lit(space_id).alias("space_id"), "split", shard.alias("shard"), "row_key", "x")
    return dealt.repartition("split", "shard").sortWithinPartitions("split", "shard", "row_key")

"""Linear maps between spaces: a new space's vectors in an earlier one's coordinates.

Each training turns and stretches the latent space at will, so a model that was trained on one space's vectors makes
nothing of another's. What both encode is mostly the same, though, and a linear map by least squares carries nearly all
of it over (docs/decisions/0011 compares it with others). The map is fitted on users that both spaces have embedded at
the same as-of dates, and judged on users that it has not seen.
Shapes: B rows, E dimensions of the space that is mapped, D dimensions of the one whose coordinates come out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from userrep.errors import UsageError
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.arrow import listed, stacked
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

RIDGE = 1e-4  # of the mean variance of a dimension: keeps dead dimensions from blowing up
FITTED_ROWS = 1_000_000  # that a map is fitted on, about; more changes nothing
_HELD_OUT = 10  # every tenth user


@dataclass(frozen=True)
class LinearMap:
    """``z_BE @ weight_ED + bias_D``."""

    weight_ED: NDArray[np.float32]
    bias_D: NDArray[np.float32]

    def __call__(self, z_BE: NDArray[np.float32]) -> NDArray[np.float32]:
        mapped: NDArray[np.float32] = z_BE @ self.weight_ED + self.bias_D
        return mapped


def common_dates(tables: Tables, new: Space, old: Space) -> list[date]:
    """Return the as-of dates that both spaces have a published snapshot of.

    Raises
    ------
    UsageError
        If there is none.
    """
    dates = [{s.as_of for s in list_snapshots(tables, space.space_id)} for space in (new, old)]
    if not dates[0] & dates[1]:
        raise UsageError(
            f"spaces {old.space_id} and {new.space_id} have no snapshot of the same as-of date, and are compared by "
            "these: `userrep daily` makes them for every space in use."
        )
    return sorted(dates[0] & dates[1])


def vector_pairs(tables: Tables, new: Space, old: Space, as_ofs: Sequence[date]) -> DataFrame:
    """Pair the vectors of users whom both spaces have embedded at the same date.

    Returns
    -------
    One row per date and user: as_of, user_id, z_new, z_old, is_held_out (a tenth of users, the same at all dates).
    Beyond ``FITTED_ROWS`` a sample of the users, the same one for every pair of spaces. Cost: a join of the two
    snapshots' rows of these users, lazy.
    """
    newest = {
        space.space_id: {s.as_of: s for s in list_snapshots(tables, space.space_id) if s.as_of in as_ofs}
        for space in (new, old)
    }
    num_rows = sum(snapshot.num_users for snapshot in newest[new.space_id].values())
    share = min(1.0, FITTED_ROWS / max(num_rows, 1))
    # Not the bits that tables are laid out by: a sample by these would be a sample of files.
    place = F.pmod(F.xxhash64("user_id", F.lit("map")), F.lit(1_000_000))

    def rows(space: Space, name: str) -> DataFrame:
        where = " OR ".join(f"({snapshot.where})" for snapshot in newest[space.space_id].values())
        found = tables.read(USER_EMBEDDINGS).where(where).where(place < int(share * 1_000_000))
        return found.select("as_of", "user_id", F.col("embedding").alias(name))

    both = rows(new, "z_new").join(rows(old, "z_old"), on=["as_of", "user_id"], how="inner")
    return both.withColumn("is_held_out", F.pmod(place, F.lit(_HELD_OUT)) == 0)


def fit_map(pairs: DataFrame) -> LinearMap:
    """Fit ``z_new`` to ``z_old`` by least squares, on the rows that are not held out.

    Cost: one pass; each task adds up (E + 1) x (E + D + 1) products, and as many numbers reach the driver.
    """
    fitted = pairs.where("NOT is_held_out").select("z_new", "z_old")
    sums = fitted.mapInArrow(_products, "place INT, products ARRAY<DOUBLE>")
    added = sums.groupBy("place").applyInArrow(_added, "place INT, products ARRAY<DOUBLE>")
    rows = sorted(added.collect(), key=lambda row: row.place)
    if not rows:
        raise UsageError("no user has a vector in both spaces: a map needs snapshots of the same dates and users.")
    sums_AC = np.array([row.products for row in rows])  # A = E + 1: the dimensions and a constant; C = A + D
    num_in = len(sums_AC)
    gram_AA, cross_AD = sums_AC[:, :num_in], sums_AC[:, num_in:]
    num_rows = gram_AA[-1, -1]
    variance_E = np.diag(gram_AA)[:-1] / num_rows - (gram_AA[-1, :-1] / num_rows) ** 2
    ridge_A = np.append(np.full(num_in - 1, RIDGE * num_rows * variance_E.mean()), 0)
    solved_AD = np.linalg.solve(gram_AA + np.diag(ridge_A), cross_AD).astype(np.float32)
    return LinearMap(solved_AD[:-1], solved_AD[-1])


def mapped(vectors: Column, fitted: LinearMap) -> Column:
    """Map a column of array<float>; null stays null. Cost: the vectors go through Arrow."""

    def apply(column: pa.Array) -> pa.Array:
        is_there = column.is_valid()
        z_BD = np.zeros((len(column), len(fitted.bias_D)), np.float32)
        z_BD[is_there.to_numpy(zero_copy_only=False)] = fitted(stacked(column.filter(is_there), len(fitted.weight_ED)))
        lists = listed(z_BD)
        return pc.if_else(is_there, lists, pa.scalar(None, lists.type))

    return arrow_udf(apply, "array<float>")(vectors)  # type: ignore[call-overload, no-any-return]


def _products(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add up the products of a partition's rows: of inputs and a constant with themselves and with the outputs."""
    sums_AC: NDArray[np.float64] | None = None
    for batch in batches:
        if batch.num_rows:
            z_new, z_old = (vectors_of(batch.column(name)) for name in ("z_new", "z_old"))
            x_BA = np.hstack([z_new, np.ones((batch.num_rows, 1))])
            added_AC = x_BA.T @ np.hstack([x_BA, z_old])
            sums_AC = added_AC if sums_AC is None else sums_AC + added_AC
    if sums_AC is not None:
        columns: dict[str, Any] = {"place": pa.array(range(len(sums_AC)), pa.int32()), "products": list(sums_AC)}
        yield pa.RecordBatch.from_pydict(columns)


def _added(rows: pa.Table) -> pa.Table:
    total = np.sum(np.stack(rows.column("products").to_pylist()), axis=0)
    return pa.table({"place": rows.column("place")[:1], "products": [total]})


def vectors_of(column: Any) -> NDArray[np.float64]:
    """Read a list column as a matrix, as wide as its first list."""
    return stacked(column, len(column[0]) if len(column) else 0).astype(np.float64)

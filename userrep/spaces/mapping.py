"""Linear maps that convert a new space's vectors to an earlier space's coordinates: fit, apply, save and load.

Each training rotates and scales the latent space arbitrarily, so a model trained on one space's vectors cannot use
another's. Both spaces encode mostly the same information, and a least-squares linear map carries nearly all of it over
(docs/decisions/0011 compares it with alternatives). The map is fitted on users that both spaces embedded at
the same as-of dates, and evaluated on held-out users. It is stored next to the artifact of the new space; the registry
has its content hash.
Shapes: B rows, E dimensions of the new (source) space, D dimensions of the old (target) space.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep import config
from userrep.errors import ArtifactError, UsageError
from userrep.ids import checked_name
from userrep.model.frozen_folder import Manifest, Tensors, read_frozen, sealed, write_frozen
from userrep.spaces.registry import Space, add_map
from userrep.spaces.snapshots import list_snapshots
from userrep.spark.releases import Arrays, arrow_udf
from userrep.spark.sums import sum_over
from userrep.store.arrow import listed, stacked
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

RIDGE = 1e-4  # relative to a dimension's variance; its square, relative to the mean variance, bounds dead dimensions
FITTED_ROWS = 1_000_000  # approximate maximum of rows that a map is fitted on; more rows do not change it
_HELD_OUT = 10  # one user in ten is held out


@dataclass(frozen=True)
class LinearMap:
    """``z_BE @ weight_ED + bias_D``."""

    weight_ED: NDArray[np.float32]
    bias_D: NDArray[np.float32]

    def __call__(self, z_BE: NDArray[np.float32]) -> NDArray[np.float32]:
        mapped: NDArray[np.float32] = z_BE @ self.weight_ED + self.bias_D
        return mapped


def common_dates(tables: Tables, new: Space, old: Space) -> list[date]:
    """Return the as-of dates for which both spaces have a published snapshot.

    Raises
    ------
    UsageError
        If the spaces have no as-of date in common.
    """
    dates = [{s.as_of for s in list_snapshots(tables, space.space_id)} for space in (new, old)]
    if not dates[0] & dates[1]:
        raise UsageError(
            f"spaces {old.space_id} and {new.space_id} have no published snapshot of the same as-of date to compare. "
            "Run `userrep daily`, which publishes one for every space in use."
        )
    return sorted(dates[0] & dates[1])


def vector_pairs(tables: Tables, new: Space, old: Space, as_ofs: Sequence[date]) -> DataFrame:
    """Pair the vectors of users that both spaces embedded at the same as-of date.

    Returns
    -------
    One row per as-of date and user: as_of, user_id, z_new, z_old, is_held_out (a tenth of the users, the same at all
    dates). Above ``FITTED_ROWS`` rows, a sample of the users, the same for every pair of spaces. Cost: a lazy join of
    the sampled users' rows.
    """
    newest = {
        space.space_id: {s.as_of: s for s in list_snapshots(tables, space.space_id) if s.as_of in as_ofs}
        for space in (new, old)
    }
    num_rows = sum(snapshot.num_users for snapshot in newest[new.space_id].values())
    share = min(1.0, FITTED_ROWS / max(num_rows, 1))

    def rows(space: Space, name: str) -> DataFrame:
        keys = [snapshot.key for snapshot in newest[space.space_id].values()]
        sampled = tables.read(USER_EMBEDDINGS, keys).where(_user_hash() < int(share * 1_000_000))
        return sampled.select("as_of", "user_id", F.col("embedding").alias(name))

    pairs = rows(new, "z_new").join(rows(old, "z_old"), on=["as_of", "user_id"], how="inner")
    return pairs.withColumn("is_held_out", F.pmod(_user_hash(), F.lit(_HELD_OUT)) == 0)


def _user_hash() -> Column:
    """Return a number below a million by user. The hash of user buckets would sample whole files."""
    return F.pmod(F.xxhash64("user_id", F.lit("map")), F.lit(1_000_000))


def fit_map(pairs: DataFrame) -> LinearMap:
    """Fit a map from ``z_new`` to ``z_old`` by least squares on the rows that are not held out.

    Cost: one pass. The driver receives (E + 1) x (E + D + 1) numbers of each task.

    Raises
    ------
    UsageError
        If no user has a vector in both spaces.
    """
    sums_AC = sum_over(pairs.where("NOT is_held_out").select("z_new", "z_old"), _products).get("products")
    if sums_AC is None:
        raise UsageError(
            "map between spaces: no user has a vector in both spaces. "
            "Publish snapshots of both spaces for the same users and as-of dates."
        )
    num_in = len(sums_AC)
    gram_AA, cross_AD = sums_AC[:, :num_in], sums_AC[:, num_in:]
    num_rows = gram_AA[-1, -1]
    variance_E = np.diag(gram_AA)[:-1] / num_rows - (gram_AA[-1, :-1] / num_rows) ** 2
    ridge_A = RIDGE * num_rows * np.append(np.maximum(variance_E, RIDGE * variance_E.mean()), 0)
    solved_AD = np.linalg.solve(gram_AA + np.diag(ridge_A), cross_AD).astype(np.float32)
    return LinearMap(solved_AD[:-1], solved_AD[-1])


def mapped(vectors: Column, fitted: LinearMap) -> Column:
    """Map a column of array<float>; nulls stay null. Cost: the vectors pass through Arrow."""

    def apply(batches: Arrays) -> Iterator[pa.Array]:
        zeros = [0.0] * len(fitted.weight_ED)
        for (column,) in batches:
            mapped_BD = fitted(stacked(column.fill_null(zeros), len(zeros)))
            yield pc.if_else(column.is_valid(), listed(mapped_BD), None)

    return arrow_udf(apply, "array<float>", pa.list_(pa.float32()))(vectors)


def _products(batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
    """Return x'x and x'z_old side by side, where x is ``z_new`` and a constant 1: A x C, A = E + 1 and C = A + D."""
    z_new, z_old = (vectors_of(batch.column(name)) for name in ("z_new", "z_old"))
    x_BA = np.hstack([z_new, np.ones((batch.num_rows, 1))])
    return {"products": x_BA.T @ np.hstack([x_BA, z_old])}


def vectors_of(column: pa.ListArray) -> NDArray[np.float32]:
    """Return a list column as a matrix whose width is the length of the first list."""
    return stacked(column, len(column[0]) if len(column) else 0)


class MapManifest(Manifest):
    """Description of a map: its two spaces, the as-of dates it was fitted on, and its agreement on held-out users."""

    from_space: config.Name
    from_hash: str
    to_space: config.Name
    to_hash: str
    created_at: datetime
    as_ofs: list[date]
    agreement: dict[str, float]


def map_folder(tables: Tables, new: Space, old: Space, content_hash: str) -> str:
    """Return the folder of a map from ``new`` to ``old``."""
    parent = f"artifacts/spaces/{new.space_id}/maps/{old.space_id}"
    return f"{tables.artifacts_root}/{parent}/{checked_name(content_hash[:16], 'map')}"


def save_map(
    tables: Tables, new: Space, old: Space, fitted: LinearMap, *, agreement: dict[str, float], as_ofs: Sequence[date]
) -> Space:
    """Save a map and name it in the registry, unless the registry names a map between these spaces already.

    The first map is permanent, so that models which read through it keep getting the same vectors. ``agreement`` is
    stored in the manifest. Returns ``new`` as it is in the registry afterwards.
    """
    manifest = MapManifest(
        from_space=new.space_id,
        from_hash=new.content_hash,
        to_space=old.space_id,
        to_hash=old.content_hash,
        created_at=datetime.now(UTC),
        as_ofs=list(as_ofs),
        agreement=agreement,
    )
    tensors = {"weight_ED": fitted.weight_ED, "bias_D": fitted.bias_D}
    manifest = sealed(manifest, tensors)
    write_frozen(map_folder(tables, new, old, manifest.content_hash), manifest, tensors)
    return add_map(tables, new, old, manifest.content_hash).space(new)


def load_map(tables: Tables, new: Space, old: Space) -> LinearMap:
    """Return the map that the registry names, after a check against the registry and both spaces.

    Raises
    ------
    UsageError
        If the registry names no map between these spaces.
    ArtifactError
        If the map was changed after it was saved, or was fitted on other artifacts than those of these spaces.
    """
    content_hash = dict(new.maps).get(old.space_id)
    if content_hash is None:
        raise UsageError(
            f"space {new.space_id}: no map to the coordinates of space {old.space_id}. "
            f"Fit one with `userrep spaces diff {old.space_id} {new.space_id}`."
        )
    folder, cure = map_folder(tables, new, old, content_hash), "Restore the folder from a copy."
    manifest, tensors = read_frozen(folder, MapManifest, expected_hash=content_hash, cure=cure)
    expected = (new.space_id, new.content_hash, old.space_id, old.content_hash)
    if (manifest.from_space, manifest.from_hash, manifest.to_space, manifest.to_hash) != expected:
        raise ArtifactError(
            f"{folder}: the map from {manifest.from_space} to {manifest.to_space} was fitted on other artifacts. {cure}"
        )
    _check(folder, tensors, cure)
    return LinearMap(tensors["weight_ED"], tensors["bias_D"])


def _check(folder: str, tensors: Tensors, cure: str) -> None:
    weight, bias = tensors.get("weight_ED"), tensors.get("bias_D")
    fits = weight is not None and bias is not None and weight.ndim == 2 and bias.shape == weight.shape[1:]
    if not fits or not all(np.isfinite(tensor).all() and tensor.dtype == np.float32 for tensor in tensors.values()):
        raise ArtifactError(f"{folder}: the tensors are not a linear map of finite float32 numbers. {cure}")

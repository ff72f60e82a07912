"""Item data of an evaluation: the vectors valid at each date, and clusters of items.

Shapes: I items, E numbers of an item, M modalities, X = E + M.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from scipy.cluster.vq import kmeans2
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from userrep.config import Config
from userrep.evaluation.metrics import Floats32, Ints, Mask
from userrep.evaluation.sampled_rows import indices_in, where_in
from userrep.features.spec import content_modality
from userrep.items.vectors import side_by_side, slices_of
from userrep.items.versions import Versions, read_vectors
from userrep.store.arrow import combined
from userrep.store.tables import Tables

_ROUNDS = 25


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of I items by date, each from the version valid at that date.

    ``version_of``: version by date. ``x_IX``: by version, the vectors of all modalities in the order of ``dims``, zeros
    for items without a vector, then a presence flag per modality.
    """

    dims: Mapping[str, int]
    version_of: Mapping[date, date]
    x_IX: Mapping[date, Floats32]

    def __post_init__(self) -> None:
        late = [f"{version} at {day}" for day, version in self.version_of.items() if version > day]
        assert not late, f"item vectors must not be newer than their date, got version {', '.join(late)}"

    def at(self, day: date) -> Floats32:
        """Return the vectors and presence flags valid at a date."""
        return self.x_IX[self.version_of[day]]

    def of(self, modality: str, day: date) -> tuple[Floats32, Mask]:
        """Return one modality's vectors valid at a date, and which items have one."""
        x_IX, flag = self.at(day), list(self.dims).index(modality) - len(self.dims)
        return x_IX[:, slices_of(self.dims)[modality]], x_IX[:, flag] > 0


def read_item_vectors(
    tables: Tables, config: Config, versions: Versions, item_ids: pa.StringArray, dates: Sequence[date]
) -> ItemVectors:
    """Read the vectors of these items in the versions valid at the dates. Driver memory: I x X per version."""
    dims = {name: vectors.dim for name, vectors in config.item_vectors.items()}
    version_of = {day: versions.valid_at(day) for day in dates}
    x_IX = {}
    for version in sorted(set(version_of.values())):
        stored = read_vectors(tables, versions.lineage_id, version).where(F.col("modality").isin(list(dims)))
        vectors = where_in(stored.select("modality", "item_id", "vector"), "item_id", item_ids).toArrow()
        item = indices_in(combined(vectors.column("item_id")), item_ids)
        x_IX[version] = np.hstack(side_by_side(vectors, item, len(item_ids), dims), dtype=np.float32)
    return ItemVectors(dims, version_of, x_IX)


def clustered_modality(config: Config) -> str:
    """Return the modality that items are clustered by: that of their content, otherwise the first of all."""
    return content_modality(config) or next(iter(config.item_vectors))


def clustered(vectors_IE: Floats32, has_I: Mask, *, num_clusters: int, seed: int) -> Ints:
    """Cluster items by the direction of their vectors (k-means of unit vectors); -1 for items without a vector.

    There are at most as many clusters as distinct directions. One thread, so that results are the same on any machine.
    """
    known = np.flatnonzero(has_I & vectors_IE.any(axis=1))
    cluster_I = np.full(len(has_I), -1)
    if len(known):
        unit_IE = normalize(vectors_IE[known])
        num_distinct = len(np.unique(unit_IE.round(5), axis=0))
        with threadpool_limits(1):
            k = min(num_clusters, num_distinct)
            cluster_I[known] = kmeans2(unit_IE, k, iter=_ROUNDS, minit="++", rng=np.random.default_rng(seed))[1]
    return cluster_I

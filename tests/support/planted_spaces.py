"""An old space and newer ones with planted relations to it, and labels that depend on the users' true tastes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.spaces.mapping import LinearMap, save_map
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.store.file_tables import FileTables

OLD, NEW = "s001-a", "s002-b"
DAYS = [date(2024, 5, 1), date(2024, 5, 8)]  # of snapshots; labels of a day follow at noon
DIM = 4
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Tastes:
    """What is true about U users: taste_UD, which the old space has, and hidden_U, which it lacks."""

    users: list[str]
    taste_UD: Vectors
    hidden_U: Vectors

    @classmethod
    def drawn(cls, num_users: int = 1_500, seed: int = 1) -> "Tastes":
        random = np.random.default_rng(seed)
        users = [f"u{k:05d}" for k in range(num_users)]
        return cls(users, random.normal(size=(num_users, DIM)), random.normal(size=num_users))

    def score(self) -> Vectors:
        """Return the number that labels depend on."""
        weights = np.array([1.0, -1.0, 0.5, 0.0])
        score_U: Vectors = self.taste_UD @ weights + 1.5 * self.hidden_U
        return score_U


def rotated(tastes: Tastes) -> tuple[Vectors, LinearMap]:
    """Return the tastes in other coordinates, and the map back."""
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, DIM)))[0]
    return tastes.taste_UD @ rotation, LinearMap(rotation.T.astype(np.float32), np.zeros(DIM, np.float32))


def noise(tastes: Tastes) -> tuple[Vectors, LinearMap]:
    """Return vectors that know nothing of the users."""
    z_UD = np.random.default_rng(3).normal(size=tastes.taste_UD.shape)
    return z_UD, LinearMap(np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32))


def richer(tastes: Tastes) -> tuple[Vectors, LinearMap]:
    """Return the tastes with the hidden dimension, and the map that drops it."""
    z_UE = np.hstack([tastes.taste_UD, tastes.hidden_U[:, None]])
    return z_UE, LinearMap(np.eye(DIM + 1, DIM, dtype=np.float32), np.zeros(DIM, np.float32))


Planted = Callable[[Tastes], tuple[Vectors, LinearMap]]


def planted_tables(root: Path, new: Planted, tastes: Tastes, days: list[date] = DAYS) -> FileTables:
    """Return tables in which the old space serves and a new one is ready, with the map between them."""
    tables = FileTables(None, str(root))
    add_spaces(tables, OLD, NEW)
    z_UE, linear_map = new(tastes)
    for space_id, z in ((OLD, tastes.taste_UD), (NEW, z_UE)):
        vectors = {user: vector.tolist() for user, vector in zip(tastes.users, z, strict=True)}
        for day in days:
            publish(tables, {snapshot(day, space=space_id, dim=z.shape[1]): vectors})
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, OLD))
    save_map(tables, find_space(tables, NEW), find_space(tables, OLD), linear_map, agreement={}, as_ofs=days)
    return tables


def labels_of(tastes: Tastes, days: list[date] = DAYS, *, kind: str = "binary") -> pa.Table:
    """Return a label for each user at noon of each day: 0 or 1, or a number."""
    random = np.random.default_rng(4)
    noons = np.array([datetime.combine(day, datetime.min.time()) + timedelta(hours=12) for day in days])
    score = np.tile(tastes.score(), len(days)) + random.normal(size=len(days) * len(tastes.users))
    return pa.table({
        "user_id": tastes.users * len(days),
        "label_at": pa.array(np.repeat(noons, len(tastes.users)).tolist(), pa.timestamp("us", "UTC")),
        "label": (score > 0).astype(np.float64) if kind == "binary" else score,
    })  # fmt: skip


def written(labels: pa.Table, folder: Path, name: str = "labels.parquet") -> str:
    """Write labels as Parquet; return the path."""
    pq.write_table(labels, folder / name)
    return str(folder / name)

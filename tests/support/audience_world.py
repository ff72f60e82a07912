"""A serving space with one snapshot in which some users share a taste, and a users table with their age."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.support.embedding_tables import add_spaces, publish_matrix, snapshot
from userrep.config import Users
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import listed
from userrep.store.file_tables import FileTables

DAY, SPACE = date(2024, 5, 1), "s001-a"


@dataclass(frozen=True)
class AudienceWorld:
    """N users ``u0000``, ...; those of ``is_alike_N`` share a taste. ``age_N`` moves vectors in one direction."""

    tables: FileTables
    made: Snapshot
    user_ids: pa.StringArray
    x_ND: NDArray[np.float32]
    is_alike_N: NDArray[np.bool_]
    age_N: NDArray[np.str_]
    users: Path

    @property
    def alike(self) -> list[str]:
        """The users with the planted taste."""
        return self.user_ids.filter(pa.array(self.is_alike_N)).to_pylist()  # type: ignore[no-any-return]

    def settings(self, *protected: str, **more: Any) -> Users:
        """Return the configuration of the users table."""
        return Users.model_validate(
            {"path": str(self.users), "columns": {"user_id": "id"}, "protected": list(protected), **more}
        )


def audience_world(
    folder: Path, *, num_users: int = 3000, share: float = 0.1, dim: int = 16, seed: int = 0
) -> AudienceWorld:
    """Write the tables below ``folder/root`` and the users table next to them."""
    rng = np.random.default_rng(seed)
    x_ND = rng.standard_normal((num_users, dim))
    is_alike_N, is_old_N = rng.random(num_users) < share, rng.random(num_users) < 0.4
    taste_TD = rng.standard_normal((2, dim))  # two tastes, as a seed list has more than one cluster
    x_ND[is_alike_N] += 1.3 * taste_TD[rng.integers(0, 2, is_alike_N.sum())]
    x_ND[is_old_N] += 0.7 * rng.standard_normal(dim)
    user_ids = pa.array([f"u{k:04d}" for k in range(num_users)])
    tables = FileTables(None, str(folder / "root"))
    add_spaces(tables, SPACE, "s002-b")
    mark_ready(tables, find_space(tables, SPACE))
    promote(tables, find_space(tables, SPACE))
    made = publish_matrix(tables, snapshot(DAY), user_ids, x_ND.astype(np.float32))
    age_N = np.where(is_old_N, "50+", "18-49")
    pq.write_table(pa.table({"id": user_ids, "age": age_N}), folder / "users.parquet")
    return AudienceWorld(tables, made, user_ids, x_ND.astype(np.float32), is_alike_N, age_N, folder / "users.parquet")


def vectors_of(x_ND: NDArray[np.float32]) -> pa.ChunkedArray:
    """Return a matrix as a column of vectors."""
    return pa.chunked_array([listed(x_ND)])

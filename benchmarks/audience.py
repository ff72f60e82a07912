"""How long does a look-alike audience over one million users take?

A seed list of 1,000 users who share a taste, an audience of 10,000, vectors of 120 numbers, and one protected
attribute. `seconds` is the whole call, from the seed list to the written folder; `value` is microseconds per user. The
run checks that at least half of the audience shares the seeds' taste; 2 % of all users do.

    make bench-audience
    python -m benchmarks.audience --small
"""

import os
import resource
import shutil
import statistics
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Line, ask, print_line, seconds_of
from userrep.audiences.audience import build_audience
from userrep.config import Users
from userrep.ids import snapshot_id
from userrep.sources.id_files import IdFile
from userrep.spaces.registry import add_candidate
from userrep.spaces.snapshots import PUBLISHED, Snapshot, record_snapshots
from userrep.store.arrow import listed
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.xxhash import bucket_of

SPACE, DAY = "s001-bench", date(2024, 1, 1)
_DRAWN = 100_000  # users at once
_SHARE = 0.02  # of users with the seeds' taste


@dataclass(frozen=True)
class AudienceSize:
    """The numbers of users and seeds and the size of the audience; vectors have ``dim`` numbers."""

    users: int
    seeds: int = 1000
    audience: int = 10_000
    dim: int = 120

    @property
    def name(self) -> str:
        return f"{self.users}-users-{self.dim}"

    def of_users(self, users: int) -> "AudienceSize":
        return replace(self, users=users)


SIZE, SMALL = AudienceSize(1_000_000), AudienceSize(20_000, seeds=100, audience=200)


def measure(size: AudienceSize, root: Path, runs: int) -> Line:
    """Build and write the audience ``runs`` times, without Spark."""
    place = root / f"audience-{size.name}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        _draw(place, size)
        (place / "done").touch()
    tables = FileTables(None, str(place))
    alike = pq.read_table(place / "users.parquet", filters=[("is_alike", "=", True)])["user_id"].to_pylist()
    seeds, out = IdFile(pa.array(alike[: size.seeds])), root / "run-audience"
    users = Users.model_validate(
        {"path": str(place / "users.parquet"), "columns": {"user_id": "user_id"}, "protected": ["age"]}
    )

    def build() -> None:
        shutil.rmtree(out, ignore_errors=True)
        audience = build_audience(tables, users, seeds, size.audience, space=SPACE)
        audience.write(str(out))

    seconds = statistics.median(seconds_of(build) for _ in range(runs))
    found = set(pq.read_table(out)["user_id"].to_pylist())
    shutil.rmtree(out)
    assert len(found & set(alike)) > min(size.audience, len(alike) - size.seeds) / 2
    return {
        "benchmark": "audience",
        "size": {**vars(size), "cores": os.cpu_count()},
        "seconds": round(seconds, 3),
        "value": round(1e6 * seconds / size.users, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _draw(place: Path, size: AudienceSize) -> None:
    """Write a snapshot and the users table, in the order of user buckets as the snapshot job does."""
    tables = FileTables(None, str(place))
    add_candidate(tables, space_id=SPACE, lineage_id="bench", trained_until=DAY, content_hash="none")
    ids = pa.array([f"u{k:08d}" for k in range(size.users)])
    bucket_N = bucket_of(ids)
    order_N = np.argsort(bucket_N, kind="stable")
    rng = np.random.default_rng(1)
    is_alike_N, is_old_N = rng.random(size.users) < _SHARE, rng.random(size.users) < 0.4
    taste_D, age_D = 0.5 * rng.standard_normal((2, size.dim))
    name, at = snapshot_id(SPACE, DAY, 1), datetime.combine(DAY, time(6))
    made = Snapshot(name, SPACE, DAY, 1, PUBLISHED, "x", size.users, at, at, "")
    writer, since = TableWriter(tables.target(USER_EMBEDDINGS)), tables.version(USER_EMBEDDINGS)
    for rows in np.array_split(order_N, -(-size.users // _DRAWN)):
        x_ND = rng.standard_normal((len(rows), size.dim))
        x_ND += is_alike_N[rows, None] * taste_D + is_old_N[rows, None] * age_D
        columns = {"user_bucket": bucket_N[rows], "user_id": ids.take(pa.array(rows))}
        writer.write(pa.table({**columns, "embedding": listed(x_ND.astype(np.float32))}), made.key)
    tables.commit(USER_EMBEDDINGS, writer.close(), replacing=lambda _: False, since=since)
    record_snapshots(tables, [made])
    people = {"user_id": ids, "age": np.where(is_old_N, "50+", "18-49"), "is_alike": is_alike_N}
    pq.write_table(pa.table(people), place / "users.parquet")


if __name__ == "__main__":
    asked = ask("audience", SIZE, small=SMALL, runs=3, unit="users", number=SIZE.users, resized=SIZE.of_users)
    print_line("audience", lambda: measure(asked.size, asked.root, asked.runs))

"""Data for inference benchmarks: a table of user features and a space, drawn once from a seed and kept below a root.

Two modalities with vectors of 80 numbers over three windows and the default history window, counts, days, shares and a
country: 711 inputs, 120 dimensions. One block in ten is absent, one attribute in ten is unknown. The weights are
untrained, the scaler is fitted.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from numpy.typing import NDArray
from pyarrow.dataset import Dataset, dataset
from pyspark.sql import DataFrame, SparkSession

from benchmarks.logs import link_files
from benchmarks.report import Line, alternating, ask, print_line, progress, ratio_line
from userrep import config
from userrep.config import Config, parse_config
from userrep.features.build import read_features, stored_features
from userrep.features.layout import CLIP, UNKNOWN, InputLayout, Moments, Scaler
from userrep.features.ledger import features_table
from userrep.features.spec import POOLED, FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.artifact import Artifact, SpaceManifest, load_artifact, tensors_of
from userrep.model.autoencoder import Autoencoder
from userrep.model.corruption import empty_input
from userrep.model.frozen_folder import FORMAT_VERSION
from userrep.spaces import create
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space
from userrep.spaces.snapshots import stage_snapshots
from userrep.spark.session import get_session
from userrep.store.arrow import listed, packed, stacked
from userrep.store.open import open_tables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import FEATURE_SETS, USER_EMBEDDINGS
from userrep.store.tables import Tables

AS_OF = date(2024, 7, 1)
LINEAGE, SPACE = "l1", "s1"
COUNTRIES = [*(f"c{k:02d}" for k in range(33)), UNKNOWN]
PEER_BATCH = 1024
_FILES = 8
_LISTS = "features_in_lists"
_CHUNK = 2**14  # rows drawn at a time


@dataclass(frozen=True)
class UserSize:
    """The number of users to encode."""

    users: int
    seed: int = 7

    @property
    def name(self) -> str:
        return f"users-{self.users}-seed{self.seed}"

    def of_users(self, users: int) -> "UserSize":
        return replace(self, users=users)


SIZE = UserSize(users=500_000)
SMALL = UserSize(users=8192)


@dataclass(frozen=True)
class Users:
    """Tables with the features of one date, and the space; a copy that may be changed and is deleted."""

    tables: Tables
    config: Config
    space: Space
    size: UserSize

    @property
    def artifact(self) -> str:
        """The folder of the space's artifact."""
        return artifact_folder(self.tables, self.space)

    @property
    def stored(self) -> DataFrame:
        """The features as the snapshot job reads them: one packed column of vectors."""
        return stored_features(self.tables, self.config, LINEAGE, [AS_OF])

    @property
    def features(self) -> DataFrame:
        """The features for peers that cannot read packed vectors: a Delta table with a column of lists per block."""
        return self.tables.spark.read.format("delta").load(f"{self.config.root}/{_LISTS}")

    @property
    def peers(self) -> str:
        """Where a peer writes its Delta table."""
        return f"{self.config.root}/peer"

    @property
    def _features(self) -> list[str]:
        return sorted(DeltaTable(self.tables.uri(features_table(self.config, LINEAGE))).file_uris())

    def encode(self) -> None:
        """Encode all users with the snapshot job."""
        stage_snapshots(self.tables, self.config, self.space, [AS_OF])

    def dataset(self) -> Dataset:
        """The features for readers without Spark."""
        return dataset(self._features)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the features without Spark, in the order of their files."""
        for file in self._features:
            yield from pa.parquet.ParquetFile(file).iter_batches(_CHUNK)

    def check(self) -> None:
        """Check that a peer's vectors equal ours."""
        ours, theirs = _vectors(self.tables.uri(USER_EMBEDDINGS)), _vectors(self.peers)
        check_vectors(ours, theirs, self.size)

    def facts(self) -> dict[str, Any]:
        """Return the fields of ``size`` in a benchmark's line."""
        layout = load_artifact(self.artifact).layout
        return {"users": self.size.users, "inputs": layout.width, "dimensions": 120, "cores": os.cpu_count()}


def our_vectors(users: Users) -> NDArray[np.float32]:
    """Return the vectors that the snapshot job wrote, by user id."""
    return _vectors(users.tables.uri(USER_EMBEDDINGS))


def check_vectors(ours: NDArray[np.float32], theirs: NDArray[np.float32], size: UserSize) -> None:
    """Check that vectors of all users differ by at most 1e-4."""
    if not len(ours) == len(theirs) == size.users or not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
        raise AssertionError(f"of {size.users} users, ours has {len(ours)} vectors and the peer {len(theirs)} others")


def against(benchmark: str, peer: str, encode: Callable[[Users], Any], users: Users, *, runs: int) -> Line:
    """Compare the snapshot job with a peer that writes a Delta table of its own; each starts with one untimed run."""
    for side in (users.encode, lambda: encode(users)):
        side()
    users.check()
    taken = alternating(users.encode, lambda: encode(users), check=users.check, runs=runs)
    return ratio_line(benchmark, users.facts(), taken, peer=peer)


def run(
    benchmark: str,
    measure: Callable[[SparkSession, UserSize, Path, int], Line],
    size: UserSize = SIZE,
    *,
    runs: int = 3,
) -> None:
    """Run one benchmark with the arguments of the command line, in its own session, and print its line."""
    asked = ask(benchmark, size, small=SMALL, runs=runs, unit="users", number=size.users, resized=size.of_users)
    spark = get_session(master=f"local[{os.cpu_count()}]", conf={"spark.driver.memory": "4g"}, app_name=benchmark)
    progress(f"{benchmark}: {asked.size.name}")
    try:
        print_line(benchmark, lambda: measure(spark, asked.size, asked.root, asked.runs))
    finally:
        spark.stop()


@contextmanager
def open_users(spark: SparkSession, size: UserSize, root: Path) -> Iterator[Users]:
    """Open tables with the features and the space; draw them if they are missing."""
    kept = root / f"{size.name}-history-format{FORMAT_VERSION}"
    if not kept.exists():
        progress(f"drawing {kept}")
        staged = root / f".{size.name}-{uuid4().hex}"  # a killed run leaves no half of the users behind
        _draw(spark, size, staged)
        staged.rename(kept)
    folder = root / f"run-{uuid4().hex}"
    link_files(kept, folder)
    try:
        settings = _config(folder)
        tables = open_tables(settings, spark)
        yield Users(tables, settings, find_space(tables, SPACE), size)
    finally:
        shutil.rmtree(folder)


def scaled_inputs(users: Users) -> NDArray[np.float32]:
    """Return the scaled x_BF of all users in the order of ``Users.batches``."""
    artifact = load_artifact(users.artifact)
    x_BF = np.empty((users.size.users, artifact.layout.width), np.float32)
    start = 0
    for batch in users.batches():
        part_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
        x_BF[start : start + len(part_BF)] = part_BF
        start += len(part_BF)
    return x_BF


def scaled_plainly(raw_BF: NDArray[np.float32], artifact: Artifact) -> NDArray[np.float32]:
    """Scale raw inputs block by block, as a peer would implement it from the documentation."""
    scaler = artifact.scaler
    x_BF: NDArray[np.float32] = np.clip((raw_BF - scaler.center_F) / scaler.scale_F, -CLIP, CLIP)
    for block in artifact.layout.blocks:
        part_BF = x_BF[:, block.start : block.stop]
        if block.flag is not None:
            part_BF *= raw_BF[:, block.flag, None]
        if block.kind == "pooled":
            length_B = np.maximum(np.linalg.norm(part_BF, axis=1, keepdims=True), 1e-6)
            part_BF *= (block.stop - block.start) ** 0.5 / length_B
    return x_BF


def user_ids(users: Users) -> NDArray[np.str_]:
    """Return the ids of all users in the order of ``Users.batches``."""
    return np.concatenate([batch.column("user_id").to_numpy(zero_copy_only=False) for batch in users.batches()])


def _vectors(uri: str) -> NDArray[np.float32]:
    rows = DeltaTable(uri).to_pyarrow_table(columns=["user_id", "embedding"]).sort_by("user_id")
    return stacked(rows["embedding"].combine_chunks(), 120)


def _config(root: Path) -> Config:
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    values = {
        "root": str(root),
        "events": {"path": "none", "columns": columns},
        "items": {"path": "none", "columns": {"item_id": "item_id", "vector": "vec"}},
        "users": {
            "path": "none",
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country"],
        },
        "windows_days": [7, 30, 180],
        "item_vectors": {modality: {"kind": "vector", "dim": 80} for modality in ("behaviour", "content")},
    }
    return parse_config(values, "benchmark")


def _draw(spark: SparkSession, size: UserSize, root: Path) -> None:
    settings = _config(root)
    tables, spec = open_tables(settings, spark), FeatureSpec.of(settings)
    table = features_table(settings, LINEAGE)
    since, target = tables.version(table), tables.target(table)
    random, files, moments = np.random.default_rng(size.seed), [], []
    layout = InputLayout.of(spec, {"attribute_country": COUNTRIES})
    for first in range(0, size.users, -(-size.users // _FILES)):
        writer = TableWriter(target)
        stop = min(size.users, first + -(-size.users // _FILES))
        for start in range(first, stop, _CHUNK):
            rows = feature_rows(spec, random, range(start, min(stop, start + _CHUNK)))
            moments.append(Moments.of(layout.raw(rows)) if not moments else moments[0])
            writer.write(pa.Table.from_batches([as_stored(rows, spec)]), {"as_of": AS_OF})
        files += writer.close()
    tables.commit(table, files, replacing=lambda _: False, since=since)
    built = {"lineage_id": LINEAGE, "as_of": AS_OF, "valid_from": AS_OF, "log_hash": "x", "sides_hash": "x"}
    times = {"num_users": size.users, "num_inexact": 0, "built_at": datetime(2024, 7, 1)}  # noqa: DTZ001  # as in ledgers
    tables.add(FEATURE_SETS, [built | times])
    read_features(tables, settings, LINEAGE, [AS_OF]).write.format("delta").save(f"{root}/{_LISTS}")
    content_hash = save_space(settings, layout, Scaler.fit(layout, moments[0]), lineage_id=LINEAGE)
    add_candidate(tables, space_id=SPACE, lineage_id=LINEAGE, trained_until=AS_OF, content_hash=content_hash)


def save_space(settings: Config, layout: InputLayout, scaler: Scaler, *, lineage_id: str) -> str:
    """Write the artifact of a space with untrained weights; return its content hash."""
    targets = TargetLayout.of(layout.spec, settings.future_days)
    state = Autoencoder(layout, settings.model, targets, seed=3).state_dict()
    manifest = SpaceManifest(
        space_id=SPACE, created_at=datetime(2024, 7, 1, tzinfo=UTC), lineage_id=lineage_id, trained_until=AS_OF,
        layout=layout, targets=targets, model=settings.model, training=config.Training(), metrics={},
        config_hash="c", code_hash="d", int8_scales=[2.0**-5] * settings.model.latent_dim,
    )  # fmt: skip
    weights = {name: tensor.numpy() for name, tensor in state.items()}
    tensors = tensors_of(weights, scaler, empty_input(layout, scaler))
    return create.save_space(str(settings.root), manifest, tensors).content_hash


def as_stored(rows: pa.RecordBatch, spec: FeatureSpec) -> pa.RecordBatch:
    """Concatenate the vectors of all blocks to one column, as in the table of features."""
    pooled_BP = np.hstack([stacked(rows.column(block.column), block.dim) for block in spec.pooled])
    names = [name for name in rows.schema.names if name not in {block.column for block in spec.pooled}]
    return pa.RecordBatch.from_arrays([packed(pooled_BP), *(rows.column(n) for n in names)], [POOLED, *names])


def feature_rows(spec: FeatureSpec, random: np.random.Generator, numbers: range) -> pa.RecordBatch:
    """Draw the features of some users, with a column of lists per block."""
    num = len(numbers)
    ids = pc.utf8_lpad(pa.array(np.arange(numbers.start, numbers.stop)).cast(pa.string()), 9, "0")
    columns: dict[str, Any] = {"user_id": pc.binary_join_element_wise("u", ids, "")}
    for block in spec.pooled:
        has = random.random(num) < 0.9
        columns[block.column] = listed(random.standard_normal((num, block.dim), np.float32) * has[:, None] / 9)
        columns[block.flag] = has
    for scalar in spec.scalars:
        values = random.lognormal(2, 1, num)
        columns[scalar] = values.astype(np.int64) if scalar.startswith("num_") else values
    for name, width in spec.shares.items():
        columns[name] = listed(random.dirichlet(np.ones(width), num).astype(np.float32))
    columns["days_since_registration"] = pa.array(columns["days_since_registration"], mask=random.random(num) < 0.1)
    columns["attribute_country"] = np.array([*COUNTRIES[:30], "elsewhere", None], object)[random.integers(32, size=num)]
    columns["is_exact"] = np.ones(num, bool)
    return pa.RecordBatch.from_pydict(columns)

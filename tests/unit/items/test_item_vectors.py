"""Item vectors made by Spark: rounded exactly, turned onto the version before, and without knowledge of the future."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.feature_extraction.text import TfidfTransformer

from tests.support.builders import config_of, write_rows
from tests.support.log_lines import messages_to
from userrep.config import Config, TextVectors
from userrep.errors import UsageError, UserrepError
from userrep.items.text import NUM_FEATURES, Basis, content_vectors, fit_basis, read_basis, tokens
from userrep.items.version_training import train_versions
from userrep.items.versions import Versions, lineage_of, read_vectors, version_records, versions_of
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import (
    ITEM_INDEX,
    ITEM_VECTOR_VERSIONS,
    ITEM_VECTORS,
    TILE_DAYS,
    USER_ITEM_DAYS,
    TableSchema,
)
from userrep.store.tables import Keys, Tables
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.default

V0, V1, V2 = date(2024, 5, 1), date(2024, 5, 8), date(2024, 5, 15)


def _matrix(vectors: DataFrame) -> NDArray[np.float64]:
    return np.array([row.vector for row in vectors.orderBy("item_index").collect()])


# Content vectors

TITLES = [
    *(f"{a} river {b} delta blues" for a in ("old", "cold", "long") for b in ("mud", "train", "whiskey", "levee")),
    *(f"{a} pulse {b} strobe techno" for a in ("acid", "dark", "long") for b in ("kick", "voltage", "loop", "modular")),
    *(f"{a} nocturne {b} sonata" for a in ("quiet", "grand", "long") for b in ("prelude", "fugue", "rondo", "étude")),
]
NEAR = ["Old river, MUD delta blues!", "old river mud delta blues"]
ODD = ["!!!", "东京", "x", "zzz never seen qqq"]


@dataclass
class Texts:
    tokens: list[list[int]]
    fitted: int  # how many of them the basis was fitted on
    vectors: NDArray[np.float64]
    basis: Basis


@pytest.fixture(scope="module")
def texts(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Texts:
    path = str(tmp_path_factory.mktemp("text") / "basis.safetensors")
    titles = [*TITLES, *NEAR, *ODD]
    frame = spark.createDataFrame(list(enumerate(titles)), "item_index INT, text STRING")
    items = frame.select("item_index", tokens(F.col("text")).alias("tokens")).coalesce(2).cache()
    fitted = len(titles) - 1
    fit_basis(items.where(F.col("item_index") < fitted), settings=TextVectors(kind="text", dim=3), path=path)
    rows = items.orderBy("item_index").collect()
    texts = Texts([row.tokens for row in rows], fitted, _matrix(content_vectors(items, path=path)), read_basis(path))
    items.unpersist()
    return texts


def test_tokens_are_words_and_pairs_of_neighbours_whatever_their_case(texts: Texts) -> None:
    assert len(texts.tokens[0]) == 5 + 4
    assert texts.tokens[len(TITLES)] == texts.tokens[len(TITLES) + 1] == texts.tokens[0]
    assert [len(found) for found in texts.tokens[-4:-1]] == [1, 1, 1]
    assert all(0 <= token < NUM_FEATURES for found in texts.tokens for token in found)


def test_content_vectors_are_the_leading_directions_of_scikit_learns_tf_idf(texts: Texts) -> None:
    counts = np.zeros((len(texts.tokens), NUM_FEATURES))
    for row, found in enumerate(texts.tokens):
        np.add.at(counts[row], found, 1)
    used = counts[: texts.fitted]
    known = used.any(axis=0)
    transformer = TfidfTransformer(sublinear_tf=True)
    weights = transformer.fit_transform(used[:, known]).toarray()
    np.testing.assert_allclose(texts.basis.idf_H[known], transformer.idf_, rtol=1e-6)
    right = np.linalg.svd(weights, full_matrices=False)[2][:3]
    ours = texts.vectors[: len(TITLES) + len(NEAR)]  # the odd ones lie outside the leading directions
    projected = (weights @ right.T)[: len(ours)]
    unit = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(ours @ ours.T, unit @ unit.T, atol=0.01)


def test_titles_that_mean_the_same_lie_close_and_others_far(texts: Texts) -> None:
    blues, techno, classical = (texts.vectors[12 * k : 12 * k + 12] for k in range(3))
    assert (blues @ blues.T).min() > 0.9
    assert (texts.vectors[len(TITLES)] @ texts.vectors[0]) > 0.9999
    assert max(abs(blues @ techno.T).max(), abs(blues @ classical.T).max()) < 0.5


def test_every_title_has_a_vector_of_norm_1_or_0(texts: Texts) -> None:
    norms = np.linalg.norm(texts.vectors, axis=1)
    assert texts.vectors.shape == (len(TITLES) + len(NEAR) + len(ODD), 3)
    np.testing.assert_allclose(norms[: len(TITLES)], 1, atol=1e-4)
    assert all(min(abs(norm), abs(norm - 1)) < 1e-4 for norm in norms)
    assert norms[-1] == 0, "no word of it is known to the basis"


# Versions of a log


def _put_tiles(tables: Tables, pairs: list[tuple[date, str, str]]) -> None:
    """Write tiles of one event each, as ``build_tiles`` does."""
    rows = [
        (day, 1, "0-of-1", _bucket(user), user, item, "event", 1, 1.0, datetime(day.year, day.month, day.day),
         1, 0, 0, 0, None)
        for day, user, item in pairs
    ]  # fmt: skip
    tables.append(tables.spark.createDataFrame(rows, USER_ITEM_DAYS.columns).coalesce(1), USER_ITEM_DAYS)
    num_by_day = Counter(day for day, _, _ in pairs)
    days = [(day, 1, "f", "c", num, num, 0, {}, None) for day, num in sorted(num_by_day.items())]
    tables.append(tables.spark.createDataFrame(days, TILE_DAYS.columns).coalesce(1), TILE_DAYS)


def _bucket(user: str) -> int:
    return int(bucket_of(pa.array([user]))[0])


# Two tastes: users and items meet where their numbers are equally even. Item i9 comes in the future of V1.
EARLY = [
    (date(2024, 5, 2 + k % 5), f"u{k}", f"i{j}") for k in range(8) for j in range(8) if (k + j) % 2 == 0 and k != j
]
LATE = [(date(2024, 5, 8 + k % 7), f"u{k}", f"i{j}") for k in range(10) for j in (1, 2, 9)]
OWN: dict[str, list[float | None] | None] = {
    "i0": [0.1, -1.0],
    "i1": [1.0],
    "i2": None,
    "i3": [1.0, float("nan")],
    "i4": [1.0, None],
    "only in the table": [5.0, 6.0],
    **dict.fromkeys(("i5", "i6", "i7")),  # in the table, so that their numbers do not depend on the tiles
}


@dataclass
class Trained:
    tables: Tables
    config: Config
    vectors: dict[date, dict[tuple[str, str], NDArray[np.float64]]]
    index: list[dict[str, int]]
    reports: list[str]


def _trained(
    spark: SparkSession, folder: Path, pairs: list[tuple[date, str, str]], runs: list[list[date]], **als: int
) -> Trained:
    write_rows(folder / "items.parquet", [{"item_id": item, "own": vector} for item, vector in OWN.items()])
    config = config_of(
        folder,
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "own"}},
        item_vectors={
            "behaviour": {"kind": "als", "dim": 3, "refit_days": 7, "iterations": 3, **als},
            "own": {"kind": "vector", "dim": 2},
        },
    )
    tables = open_tables(config, spark)
    _put_tiles(tables, pairs)
    trained = Trained(tables, config, {}, [], [])
    for wanted in runs:
        with messages_to(trained.reports.append):
            train_versions(tables, config, versions_of(tables, config, anchor=V1), wanted)
        trained.index.append({row.item_id: row.item_index for row in tables.read(ITEM_INDEX).collect()})
    for version in (version for wanted in runs for version in wanted):
        rows = read_vectors(tables, lineage_of(config), version).collect()
        trained.vectors[version] = {(row.modality, row.item_id): np.array(row.vector) for row in rows}
        assert len(rows) == len(trained.vectors[version])
    return trained


@pytest.fixture(scope="module")
def whole(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(spark, tmp_path_factory.mktemp("whole"), EARLY + LATE, [[V0, V1], [V2]])


def _behaviour(trained: Trained, version: date) -> dict[str, NDArray[np.float64]]:
    return {item: v for (modality, item), v in trained.vectors[version].items() if modality == "behaviour"}


def test_a_version_knows_nothing_of_the_log_from_its_date_on(
    spark: SparkSession, tmp_path: Path, whole: Trained
) -> None:
    early = _trained(spark, tmp_path, EARLY, [[V1]])
    assert early.vectors[V1].keys() == whole.vectors[V1].keys()
    for key, vector in early.vectors[V1].items():
        np.testing.assert_allclose(vector, whole.vectors[V1][key], atol=1e-4)


@pytest.mark.full
def test_a_version_is_fitted_on_the_users_of_the_lowest_buckets_where_there_are_more_tiles(
    spark: SparkSession, tmp_path: Path
) -> None:
    few = [of for of in EARLY if _bucket(of[1]) < NUM_BUCKETS / 2]
    assert 0 < len(few) < len(EARLY)
    some = _trained(spark, tmp_path / "some", EARLY, [[V1]], max_tiles=len(EARLY) // 2)
    alone = _trained(spark, tmp_path / "alone", few, [[V1]])
    assert some.vectors[V1].keys() == alone.vectors[V1].keys()
    for key, vector in alone.vectors[V1].items():
        np.testing.assert_allclose(some.vectors[V1][key], vector, atol=1e-4)


def test_a_version_that_another_run_records_first_keeps_its_record(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = FileTables.replace

    def then_another_run(self: FileTables, rows: DataFrame, table: TableSchema, keys: Keys, **how: Any) -> None:
        replace(self, rows, table, keys, **how)
        if table is ITEM_VECTORS:
            self.add(ITEM_VECTOR_VERSIONS, [{**key, "num_items": 99} for key in keys])

    monkeypatch.setattr(FileTables, "replace", then_another_run)
    with pytest.raises(UserrepError, match="item_vector_versions: another run has changed the same rows meanwhile"):
        _trained(spark, tmp_path, EARLY, [[V1]])
    records = FileTables(None, str(tmp_path / "root")).ledger(ITEM_VECTOR_VERSIONS)
    assert [row.num_items for row in records] == [99]


def test_versions_that_are_made_together_are_those_that_are_made_one_after_the_other(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = _trained(spark, tmp_path / "together", EARLY + LATE, [[V1, V2]])
    monkeypatch.setattr("userrep.items.version_training._GROUP_TILES", 0)
    alone = _trained(spark, tmp_path / "alone", EARLY + LATE, [[V1, V2]])
    assert [len(trained.reports) for trained in (together, alone)] == [1, 2]
    for version in (V1, V2):
        assert alone.vectors[version].keys() == together.vectors[version].keys()
        assert all((alone.vectors[version][key] == of).all() for key, of in together.vectors[version].items())


def test_every_item_with_an_event_before_a_version_has_a_behaviour_vector(whole: Trained) -> None:
    assert not _behaviour(whole, V0)
    assert _behaviour(whole, V1).keys() == {item for day, _, item in EARLY + LATE if day < V1}
    assert _behaviour(whole, V2).keys() == {item for _, _, item in EARLY + LATE}


def test_items_of_one_taste_lie_closer_and_vectors_have_norm_1(whole: Trained) -> None:
    vectors = _behaviour(whole, V1)
    cosines = {(a, b): vectors[a] @ vectors[b] for a in vectors for b in vectors if a < b}
    same = [cosine for (a, b), cosine in cosines.items() if (int(a[1:]) - int(b[1:])) % 2 == 0]
    others = [cosine for (a, b), cosine in cosines.items() if (int(a[1:]) - int(b[1:])) % 2 == 1]
    assert np.mean(same) > np.mean(others) + 0.3, (np.mean(same), np.mean(others))
    assert [np.linalg.norm(v) for v in vectors.values()] == pytest.approx([1] * len(vectors), abs=1e-4)


def test_a_version_is_turned_onto_the_one_before(spark: SparkSession, whole: Trained) -> None:
    before, now = _behaviour(whole, V1), _behaviour(whole, V2)
    product = sum(np.outer(now[item], before[item]) for item in before)
    left, _, right = np.linalg.svd(product)
    np.testing.assert_allclose(left @ right, np.eye(3), atol=1e-3)


def test_the_owners_vectors_come_rounded_and_those_that_are_none_are_left_out(whole: Trained) -> None:
    for version in (V0, V1, V2):
        own = {item: v for (modality, item), v in whole.vectors[version].items() if modality == "own"}
        assert own.keys() == {"i0", "only in the table"}
        assert own["i0"].tolist() == [round(0.1 * 2**16) / 2**16, -1.0]


def test_an_item_keeps_its_number_when_new_ones_come(whole: Trained) -> None:
    first, second = whole.index
    assert second.keys() - first.keys() == {"i9"}
    assert {item: second[item] for item in first} == first
    assert sorted(second.values()) == list(range(len(second)))


def test_vectors_lie_in_the_order_of_item_buckets_and_the_ledger_knows_the_largest_component(whole: Trained) -> None:
    made = version_records(whole.tables, lineage_of(whole.config))
    for version, vectors in whole.vectors.items():
        assert made[version].largest == max(np.abs(vector).max() for vector in vectors.values())
        paths = read_vectors(whole.tables, lineage_of(whole.config), version).inputFiles()
        assert len(paths) == len({modality for modality, _ in vectors})
        for path in paths:
            rows = pq.read_table(path.removeprefix("file:"), partitioning=None)
            bucket_N = rows.column("item_bucket").to_numpy()
            assert bucket_N.tolist() == sorted(bucket_of(rows.column("item_id").combine_chunks()))
            assert pq.read_metadata(path.removeprefix("file:")).row_group(0).column(0).statistics.min == bucket_N[0]


def test_complete_versions_are_there_and_anchor_the_grid(whole: Trained) -> None:
    versions = versions_of(whole.tables, whole.config, anchor=date(2030, 1, 1))
    assert versions.present == {V0, V1, V2}
    assert versions.anchor == V0
    assert whole.reports == [
        f"item vectors valid from {V0} to {V1} (2 of 2)", f"item vectors valid from {V2} (1 of 1)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"item_id": "sku", "vector": "own"}, "items.columns.item_id: no column 'sku'; columns found: item_id, own"),
        (
            {"item_id": "item_id", "vector": "item_id"},
            "vector: not a list of numbers, got column 'item_id' of type string. Map",
        ),
    ],
)
def test_an_item_table_that_lacks_what_is_mapped_is_refused(
    spark: SparkSession, tmp_path: Path, whole: Trained, columns: dict[str, str], fault: str
) -> None:
    assert whole.config.items is not None
    items = whole.config.items.model_copy(update={"columns": whole.config.items.columns.model_copy(update=columns)})
    config = whole.config.model_copy(update={"items": items})
    versions = Versions("l1", V1, 7, frozenset())
    with pytest.raises(UsageError, match=fault):
        train_versions(whole.tables, config, versions, [V1])

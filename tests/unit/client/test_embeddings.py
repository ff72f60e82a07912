"""``userrep.open``: what it opens and refuses, its joins and look-ups with pandas and Spark, its registrations."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pytest
import yaml
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession

import userrep
from tests.support.builders import config_of, left_to_spark
from tests.support.embedding_tables import Update, add_spaces, add_updates, publish, snapshot
from userrep.erasure.exports import erase_from_exports
from userrep.errors import UsageError
from userrep.joins.training_sets import list_training_sets, training_set_id
from userrep.spaces.registry import find_space, mark_ready, promote, read_registry
from userrep.spaces.snapshots import EXPIRED, record_snapshots
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[3]
DAY, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with two snapshots of the serving space, and one ready space."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s001-a", "s002-b")
    publish(tables, {snapshot(DAY): {"u1": [0.5], "7": [0.75]}, snapshot(DAY + timedelta(days=1)): {"u1": [1.5]}})
    for space_id in ("s001-a", "s002-b"):
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s001-a"))
    return tmp_path / "root"


def pandas_labels() -> pd.DataFrame:
    return pd.DataFrame({"user_id": ["u1", "new", "u1"], "label_at": [NOON, NOON, NOON + timedelta(days=1)]})


def test_a_pandas_join_imports_no_torch_and_starts_no_jvm(root: Path) -> None:
    code = f"""
import sys
import pandas
import userrep
embeddings = userrep.open({str(root)!r})
times = pandas.to_datetime(["2024-05-01 12:00"] * 2)
joined = embeddings.join(pandas.DataFrame({{"user_id": ["u1", "new"], "label_at": times}}))
assert joined["embedding_status"].tolist() == ["found", "not_in_snapshot"], joined
assert len(embeddings.latest()) == 1
assert embeddings.lookup(["u1"])["embedding"][0].tolist() == [1.5]
from pyspark import SparkContext
from pyspark.sql import SparkSession
assert SparkContext._gateway is None
assert SparkSession.getActiveSession() is None
assert len(embeddings.training_set("t", joined[["user_id"]].assign(label_at=times))) == 2
print([name for name in ("torch", "sklearn", "mlflow") if name in sys.modules])
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": "/nowhere"}
    )
    assert ran.stdout.strip() == "[]", ran.stderr[-2000:]


def test_a_root_a_configuration_and_its_file_open_the_same_tables(root: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path).model_copy(update={"root": str(root)})
    path = tmp_path / "userrep.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True, by_alias=True)))
    for target in (str(root), root, config, path, str(path), f"file:{root}"):
        embeddings = userrep.open(target)
        assert [space.space_id for space in embeddings.spaces()] == ["s001-a", "s002-b"]
    assert [made.as_of for made in embeddings.snapshots()] == [DAY, DAY + timedelta(days=1)]
    assert embeddings.snapshots("s002-b") == []


def test_a_root_without_tables_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no userrep tables at {tmp_path}/typo: check the location"):
        userrep.open(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_catalog_is_checked_at_its_first_use(spark: SparkSession) -> None:
    embeddings = userrep.open("spark_catalog.no_such_schema", spark=spark)
    with pytest.raises(UsageError, match=r"no userrep tables at spark_catalog\.no_such_schema"):
        embeddings.spaces()


def test_pandas_and_spark_labels_get_the_same_rows(root: Path, spark: SparkSession) -> None:
    embeddings = userrep.open(root)
    labels = spark.createDataFrame(pandas_labels())
    found = embeddings.join(pandas_labels())
    joined = embeddings.join(labels).toPandas()
    assert list(joined.columns) == list(found.columns)
    assert sorted(joined.drop(columns="embedding").values.tolist(), key=str) == sorted(
        found.drop(columns="embedding").values.tolist(), key=str
    )
    options = {"maxAgeDays": 0, "handleInvalid": "skip", "outputCol": "taste"}
    assert embeddings.join(pandas_labels(), **options).empty  # type: ignore[typeddict-item]
    assert embeddings.join(labels, **options).columns[-2:] == ["taste", "taste_status"]  # type: ignore[typeddict-item]
    assert embeddings.join(labels, **options).isEmpty()  # type: ignore[typeddict-item]


def test_user_ids_that_are_numbers_are_cast_with_a_warning(root: Path, spark: SparkSession) -> None:
    embeddings = userrep.open(root)
    labels = pd.DataFrame({"user_id": [7], "label_at": [NOON]})
    for frame in (labels, spark.createDataFrame(labels)):
        with pytest.warns(UserWarning, match="'user_id' has whole numbers, which are cast") as warned:
            found = embeddings.join(frame)
        assert warned[0].filename == __file__
        rows = found if isinstance(found, pd.DataFrame) else found.toPandas()
        assert rows["embedding"][0] == [0.75]


def test_updates_of_pandas_labels_are_joined_with_spark(root: Path, spark: SparkSession) -> None:
    later = DAY + timedelta(days=2)
    add_updates(FileTables(None, str(root)), [Update(later, "u1", NOON + timedelta(days=1), [9.0])])
    labels = pandas_labels().set_axis(["a", "b", "c"])
    found = userrep.open(root, spark=spark).join(labels, updates=True)
    assert found.index.tolist() == ["a", "b", "c"]
    assert found["embedding_status"].tolist() == ["found", "not_in_snapshot", "update"]
    assert found["embedding"]["c"].tolist() == [9.0]


def test_wrong_options_and_labels_are_named(root: Path) -> None:
    embeddings = userrep.open(root)
    with pytest.raises(UsageError, match="unknown option maxAge; did you mean maxAgeDays") as caught:
        embeddings.join(pandas_labels(), maxAge=3, label=1)  # type: ignore[call-arg]
    assert caught.value.faults[1].startswith("unknown option label; known options: userCol, timeCol, outputCol")
    with pytest.raises(UsageError, match="handleInvalid: expected one of error, skip, keep, got 'drop'"):
        embeddings.join(pandas_labels(), handleInvalid="drop")
    for join in (embeddings.join, partial(embeddings.training_set, "churn")):
        with pytest.raises(UsageError, match="labels: expected a Spark or pandas DataFrame, got a builtins list"):
            join([("u1", NOON)])
    with pytest.raises(UsageError, match="training set 'a b' is not a valid name"):
        embeddings.training_set("a b", pandas_labels())
    with pytest.raises(UsageError, match="vectors: 'vector' is a type of Spark ML"):
        embeddings.training_set("churn", pandas_labels(), vectors="vector")


def test_a_look_up_has_a_row_for_each_id_in_its_order(root: Path) -> None:
    embeddings = userrep.open(root)
    found = embeddings.lookup(pd.Series(["7", "u1", None], index=[5, 6, 7]))
    assert found.columns.tolist() == ["user_id", "snapshot_id", "as_of", "embedding", "embedding_status"]
    assert found["embedding_status"].to_dict() == {5: "not_in_snapshot", 6: "found", 7: "null_user"}
    assert found["embedding"][6].tolist() == [1.5]
    assert set(found["as_of"]) == {DAY + timedelta(days=1)}
    assert embeddings.lookup([]).empty


@pytest.mark.parametrize(
    ("given", "kind"), [("u1", "str"), (b"u1", "bytes"), (5, "int"), (pd.DataFrame(), "DataFrame")]
)
def test_a_look_up_takes_a_list_of_ids(root: Path, given: Any, kind: str) -> None:
    with pytest.raises(UsageError, match=f"user_ids: expected a list or a Series of ids, got {kind}"):
        userrep.open(root).lookup(given)


def test_a_look_up_reads_the_newest_snapshot_that_is_available_yet(root: Path) -> None:
    embeddings = userrep.open(root)
    later = embeddings.snapshots()[-1]
    future = replace(later, as_of=later.as_of + timedelta(days=1), available_at=datetime(2200, 1, 1), snapshot_id="x")
    record_snapshots(embeddings.tables, [future])
    assert set(embeddings.lookup(["u1"])["as_of"]) == {later.as_of}


def test_a_look_up_in_a_catalog_reads_one_snapshot(
    root: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, read = userrep.open(root, spark=spark), []
    tables = embeddings.tables = left_to_spark(embeddings.tables)
    reading = tables.read
    monkeypatch.setattr(
        tables, "read", lambda table, keys=None, **how: read.append((table.name, keys)) or reading(table, keys, **how)
    )
    assert embeddings.lookup(["7", "u1"])["embedding_status"].tolist() == ["not_in_snapshot", "found"]
    (keys,) = [keys for name, keys in read if name == "user_embeddings"]
    assert [key["as_of"] for key in keys] == [DAY + timedelta(days=1)]


def test_a_consumer_reads_only_the_three_tables_of_the_page_on_access(root: Path) -> None:
    page = (ROOT / "docs" / "reference" / "access.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^ROOT/tables/(\w+)/\*$", page, flags=re.MULTILINE))
    assert named == {"registry", "snapshots", "user_embeddings"}
    for table in (root / "tables").iterdir():
        if table.name not in named:
            shutil.rmtree(table)
    embeddings = userrep.open(root)
    assert embeddings.join(pandas_labels())["embedding_status"].tolist() == ["found", "not_in_snapshot", "found"]
    assert (embeddings.latest().num_rows, len(embeddings.lookup(["u1"])), len(embeddings.spaces())) == (1, 1, 2)


def test_latest_is_arrow_without_a_session_and_spark_with_one(root: Path, spark: SparkSession) -> None:
    assert userrep.open(root).latest().to_pylist() == [row.asDict() for row in
        userrep.open(root, spark=spark).latest().collect()]  # fmt: skip


def test_a_training_set_of_a_registered_consumer_feeds_a_pipeline(root: Path, spark: SparkSession) -> None:
    embeddings = userrep.open(root, spark=spark)
    embeddings.register_consumer("churn", owner="team growth")
    embeddings.ready("churn", "s002-b")
    labels = spark.createDataFrame(pandas_labels().assign(label=[0.0, 1.0, 1.0]))
    rows = embeddings.training_set("churn", labels, "churn", vectors="vector", handleInvalid="skip")
    assert rows.count() == 2
    tables = FileTables(None, str(root))
    (recorded,) = list_training_sets(tables)
    assert (recorded.training_set_id, recorded.consumer) == (training_set_id(rows), "churn")
    model = Pipeline(stages=[userrep.EmbeddingJoin(root=str(root)), LogisticRegression(featuresCol="embedding")])
    assert model.fit(labels).transform(labels).count() == 2


@pytest.mark.parametrize("backend", ["files", pytest.param("catalog", marks=pytest.mark.full)])
def test_pandas_and_spark_labels_make_one_training_set(root: Path, spark: SparkSession, backend: str) -> None:
    embeddings = userrep.open(root, spark=spark)
    embeddings.register_consumer("churn", owner="team growth")
    tables = embeddings.tables
    if backend == "catalog":
        embeddings.tables = left_to_spark(tables)
    labels = pandas_labels().set_axis(["a", "b", "c"])
    rows = embeddings.training_set("churn", labels, "churn", handleInvalid="skip")
    assert (rows.index.tolist(), [z.tolist() for z in rows["embedding"]]) == (["a", "c"], [[0.5], [1.5]])
    (recorded,) = list_training_sets(tables)
    assert rows.attrs["userrep_training_set_id"] == recorded.training_set_id
    assert read_registry(tables).consumer("churn").training_set_id == recorded.training_set_id
    assert (recorded.first_label_at, recorded.last_label_at) == (NOON, NOON + timedelta(days=1))
    made = embeddings.training_set("churn", spark.createDataFrame(labels), "churn", handleInvalid="skip")
    assert made.schema["embedding"].metadata["userrep_training_set_id"] == recorded.training_set_id
    assert list_training_sets(tables) == [recorded]


@pytest.mark.parametrize("engine", ["pandas", "tasks", "updates", pytest.param("catalog", marks=pytest.mark.full)])
def test_a_training_set_in_files_has_the_rows_of_the_frame_and_is_reached_by_erasure(
    root: Path, tmp_path: Path, spark: SparkSession, engine: str
) -> None:
    embeddings, out = userrep.open(root, spark=spark), tmp_path / "out"
    if engine == "catalog":
        embeddings.tables = left_to_spark(embeddings.tables)
        embeddings._with_spark = lambda labels: (embeddings.tables, labels)  # type: ignore[method-assign]
    labels = pandas_labels().assign(who=["u1", None, "u1"], label=[0.0, 1.0, 2.0]).drop(columns="user_id")
    labels = labels.astype({"label": "uint8" if engine == "pandas" else "float"})
    given = labels if engine == "pandas" else spark.createDataFrame(labels)
    options = {"userCol": "who", "updates": engine == "updates"}
    manifest = embeddings.write_training_set("churn", given, out, **options)  # type: ignore[typeddict-item]
    frame = embeddings.training_set("churn", labels, **options)  # type: ignore[typeddict-item]
    assert frame.attrs["userrep_training_set_id"] == manifest["training_set_id"]
    assert (manifest["space_id"], manifest["num_rows"], manifest["what"]) == ("s001-a", 3, "training set")
    found = pd.read_parquet(out).sort_values("label").reset_index(drop=True)
    assert found["label_at"].tolist() == [at.tz_localize("UTC") for at in labels["label_at"]]
    columns = [name for name in frame.columns if name != "label_at"]
    pd.testing.assert_frame_equal(found[columns], frame[columns])
    assert manifest["columns"].keys() == set(frame.columns)
    erased = erase_from_exports(embeddings.tables, lambda ids: pc.equal(ids, "u1").fill_null(False).to_numpy(False))
    assert erased == {str(out): "2 rows"}
    assert pd.read_parquet(out)["label"].tolist() == [1.0]


def test_a_training_set_in_files_is_that_of_its_labels_again_and_again(
    root: Path, tmp_path: Path, spark: SparkSession
) -> None:
    embeddings, out, link = userrep.open(root), tmp_path / "my sets", tmp_path / "link"
    publish(FileTables(None, str(root)), {snapshot(DAY, space="s002-b"): {"u1": [7.0]}})
    labels = spark.createDataFrame(pandas_labels())
    other = embeddings.training_set("other", labels, space="s002-b")  # the metadata names another training set
    given = other.select("user_id", "label_at", other["embedding"].alias("old"))
    manifests = [embeddings.write_training_set("churn", given, out) for _ in range(2)]
    assert manifests[0]["sha256"] == manifests[1]["sha256"]
    assert (manifests[1]["space_id"], manifests[1]["training_set_id"][:6]) == ("s001-a", "churn-")
    found = pd.read_parquet(out).sort_values("label_at")
    assert [None if z is None else z.tolist() for z in found.dropna()["embedding"]] == [[0.5], [1.5]]
    link.symlink_to(out)
    for source, target in ((out, f"{out}/"), (link, out), (out, link), (out, f"{root}/../{out.relative_to(tmp_path)}")):
        read = spark.read.parquet(str(source)).select("user_id", "label_at")
        with pytest.raises(UsageError, match="the labels are read from this folder"):
            embeddings.write_training_set("churn", read, target)
    assert len(pd.read_parquet(out)) == 3
    with pytest.raises(UsageError, match="which files do not have"):
        embeddings.write_training_set("churn", labels, tmp_path / "new", vectors="vector")


def test_a_training_set_in_files_is_refused_before_it_is_recorded(root: Path, tmp_path: Path) -> None:
    embeddings = userrep.open(root)
    (tmp_path / "mine.txt").touch()
    for out, options, fault in (
        (tmp_path, {}, "is not empty and is not an earlier export"),
        (tmp_path / "out", {"vectors": "vector"}, "vectors: 'vector' is a type of Spark ML"),
        (tmp_path / "out", {"space": "s009"}, "space s009: not in the registry"),
    ):
        with pytest.raises(UsageError, match=fault):
            embeddings.write_training_set("churn", pandas_labels(), out, **options)  # type: ignore[arg-type]
    mixed = pandas_labels().assign(label=["a", 1, 2.5])
    for labels in (mixed, pd.concat([mixed[["label"]], mixed], axis=1), mixed.assign(label=2**70)):
        with pytest.raises(UsageError, match="labels: a column cannot be written"):
            embeddings.write_training_set("churn", labels, tmp_path / "out")
    assert list_training_sets(embeddings.tables) == []
    assert not (tmp_path / "out").exists()


def test_pandas_labels_of_expired_snapshots_or_of_none_make_no_training_set(root: Path) -> None:
    embeddings = userrep.open(root)
    with pytest.raises(UsageError, match="none has a snapshot, because the first one of space s001-a is available"):
        embeddings.training_set("churn", pandas_labels().assign(label_at=NOON - timedelta(days=9)))
    with pytest.raises(UsageError, match=r"no row has a time in label_at\. Pass at least one label"):
        embeddings.training_set("churn", pandas_labels().iloc[:0])
    record_snapshots(embeddings.tables, [snapshot(DAY, state=EXPIRED)])
    with pytest.raises(UsageError, match=r"expired snapshots, .* s001-a-20240501-r1\. Leave out the labels"):
        embeddings.training_set("churn", pandas_labels())
    assert list_training_sets(embeddings.tables) == []


def test_registrations_need_a_writable_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = userrep.open(root)
    monkeypatch.setattr("userrep.store.filesystem.os.access", lambda *_: False)
    with pytest.raises(UsageError, match=r"not writable \(.*\)\. Name another one, or request write access"):
        embeddings.register_consumer("churn", owner="team growth")
    with pytest.raises(UsageError, match="not writable"):
        embeddings.ready("churn", "s002-b")

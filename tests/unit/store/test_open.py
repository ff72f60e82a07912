"""A root that files can be committed to atomically is not left to Spark; all others are, and catalogs."""

from pathlib import Path

import pytest

from tests.support.builders import config_of
from userrep.config import parse_config
from userrep.store.file_tables import FileTables
from userrep.store.open import artifacts_root, open_root, open_tables
from userrep.store.schemas import EXPORTS
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


def test_tables_of_a_catalog_are_in_its_schema_and_their_artifacts_at_the_configured_path() -> None:
    events = {"path": "l", "columns": {"user_id": "u", "item_id": "i", "event_at": "a"}}
    place = {"catalog": "main", "schema": "rep", "artifacts": "s3a://b/models/"}
    catalog = open_tables(parse_config({**place, "events": events}, "c"), None)
    assert isinstance(catalog, SparkTables)
    assert catalog.name(EXPORTS) == "`main`.`rep`.`exports`"
    assert (catalog.location, catalog.artifacts_root) == ("main.rep", "s3a://b/models")


@pytest.mark.parametrize(
    ("root", "kind"),
    [("/data/x", FileTables), ("build/x", FileTables), ("file:/data/x", FileTables), ("file:///data/x", FileTables),
     ("s3a://b/x", FileTables), ("s3://b/x", FileTables), ("abfss://c@a/x", FileTables), ("gs://b/x", FileTables),
     ("dbfs:/x", SparkTables), ("/dbfs/x", SparkTables), ("/Volumes/c/s/v", SparkTables),
     ("hdfs://n/x", SparkTables)],
)  # fmt: skip
def test_tables_are_read_and_committed_without_spark_where_that_is_safe(root: str, kind: type[Tables]) -> None:
    assert isinstance(open_root(root, None), kind)


@pytest.mark.parametrize(
    ("root", "shown"),
    [("/data/x/", "/data/x"), ("file:///data/x", "/data/x"), ("s3a://b/x", "s3a://b/x"), ("dbfs:/x", "dbfs:/x")],
)
def test_a_table_is_a_folder_below_the_root(root: str, shown: str) -> None:
    tables = open_root(root, None)
    assert tables.name(EXPORTS) == f"delta.`{shown}/tables/exports`"
    assert (tables.location, tables.artifacts_root) == (shown, shown)


def test_a_relative_root_lies_in_the_working_directory(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert open_root("build", None).artifacts_root == f"{tmp_path}/build"


def test_artifacts_are_below_the_root_or_at_a_catalog_s_path_or_in_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert artifacts_root(config_of(tmp_path)) == f"{tmp_path}/root"
    assert artifacts_root(config_of(tmp_path, root="s3a://lake/x/")) == "s3a://lake/x"
    catalog = {"root": None, "catalog": "main", "schema": "rep"}
    assert artifacts_root(config_of(tmp_path, **catalog, artifacts="/models")) == "/models"
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    assert artifacts_root(config_of(tmp_path, **catalog)) == "/Volumes/main/rep/userrep"

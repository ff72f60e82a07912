"""A catalog on a Hive metastore: every command that works below a root works there, and features are the same."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, SPARK, pipeline_config, pipeline_values
from tests.support.metastore import hive_metastore
from userrep.items.versions import lineage_of
from userrep.workflows.daily import daily
from userrep.workflows.export import export_features
from userrep.workflows.pipeline import Pipeline

pytestmark = pytest.mark.full

NEXT = AS_OF + timedelta(days=1)
EARLIER = AS_OF - timedelta(days=3)


class Catalog:
    """A schema of a metastore, and commands on it, each in a process of its own."""

    def __init__(self, folder: Path, log: Path, metastore: str) -> None:
        values = pipeline_values(log, "")
        del values["root"]
        hive = {
            "spark.sql.catalogImplementation": "hive",
            "spark.hadoop.hive.metastore.uris": metastore,
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }
        values |= {"catalog": "spark_catalog", "schema": "users", "artifacts": str(folder / "artifacts")}
        self.folder, self.config = folder, folder / "userrep.yaml"
        self.values = values | {"spark": {"master": "local[2]", "conf": {**SPARK, **hive}}}
        self.config.write_text(yaml.safe_dump(self.values))

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command; return what it printed on stdout, or on stderr where it fails."""
        command = [sys.executable, "-m", "userrep.cli", *map(str, arguments), "--config", str(self.config)]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=900)
        assert ran.returncode == code, ran.stderr[-4000:]
        return ran.stdout if code == 0 else ran.stderr

    def result(self, *arguments: object) -> dict[str, Any]:
        return dict(json.loads(self.run(*arguments, "--json")))


@pytest.fixture(scope="module")
def metastore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with hive_metastore(tmp_path_factory.mktemp("metastore")) as uri:
        yield uri


@pytest.fixture(scope="module")
def catalog(log: Path, metastore: str, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalog after a pipeline, a night, an older date and a second space."""
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), log, metastore)
    catalog.run("pipeline", "--as-of", AS_OF)
    catalog.run("daily", "--as-of", NEXT, "--as-if-on-time")
    catalog.run("backfill", "--from", EARLIER, "--to", EARLIER, "--every", 1)
    return catalog


def exported(catalog: Catalog, what: str, as_of: date) -> dict[str, str]:
    out = catalog.folder / f"{what}-{as_of}"
    catalog.run("export", what, "--as-of", as_of, "--out", out)
    return dict(json.loads((out / "_manifest.json").read_text())["sha256"])


def test_features_are_those_below_a_root_to_the_byte(
    catalog: Catalog, spark: SparkSession, log: Path, tmp_path: Path
) -> None:
    config = pipeline_config(log, tmp_path / "root")
    Pipeline(config, spark, AS_OF, report=lambda _: None).run()
    night = Pipeline(config, spark, NEXT, report=lambda _: None)
    daily(night, on_time=True)
    for as_of in (AS_OF, NEXT):
        below = export_features(night.tables, config, lineage_of(config), as_of, str(tmp_path / f"{as_of}"))
        assert exported(catalog, "features", as_of) == below["sha256"]


def test_a_second_run_finds_everything_up_to_date(catalog: Catalog) -> None:
    assert catalog.result("status")["snapshots"]
    catalog.run("pipeline", "--as-of", AS_OF)
    spaces = catalog.result("spaces", "list")["spaces"]
    assert [space["state"] for space in spaces] == ["serving"]


def test_a_retrained_space_is_promoted_and_rolled_back(catalog: Catalog) -> None:
    catalog.run("pipeline", "--as-of", AS_OF, "--retrain")
    first, second = (space["space_id"] for space in catalog.result("spaces", "list")["spaces"])
    catalog.run("spaces", "promote", second)
    assert exported(catalog, "embeddings", AS_OF)
    states = {space["space_id"]: space["state"] for space in catalog.result("spaces", "list")["spaces"]}
    assert states == {first: "ready", second: "serving"}
    catalog.run("spaces", "rollback")


def test_a_consumer_joins_by_the_schema_alone(catalog: Catalog) -> None:
    script = f"""
from datetime import datetime
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.spark.session import get_session
spark = get_session("local[2]", {catalog.values["spark"]["conf"]!r})
row = ("u0000001", datetime({AS_OF.year}, {AS_OF.month}, {AS_OF.day}, 12))
labels = spark.createDataFrame([row], "user_id STRING, label_at TIMESTAMP")
join = EmbeddingJoin(schema="spark_catalog.users", inputCol="user_id")
print([len(row.embedding) for row in join.transform(labels).collect()])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout.strip().splitlines()[-1] == "[48]"


def test_users_are_forgotten_and_tables_maintained(catalog: Catalog) -> None:
    ids = catalog.folder / "ids.txt"
    ids.write_text("u0000002\n")
    receipt = catalog.result("forget", "--users", ids, "--now")
    assert receipt["rows"]["user_embeddings"] > 0
    catalog.run("run", "maintain_tables")
    catalog.run("report", "--out", catalog.folder / "report.html")
    assert (catalog.folder / "report.html").exists()


def test_a_stream_is_refused_before_it_begins(catalog: Catalog) -> None:
    assert "set root:" in catalog.run("stream", "--until-empty", code=2)

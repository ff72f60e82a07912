"""Spaces and consumers of a catalog: up to date, retrained, promoted, rolled back, joined."""

import os
import subprocess
import sys

import pytest

from tests.support.builders import AS_OF
from tests.system.catalog.conftest import Catalog

pytestmark = pytest.mark.full


def test_a_second_run_finds_everything_up_to_date(catalog: Catalog) -> None:
    assert catalog.result("status")["bytes"]["user_embeddings"] > 0
    catalog.run("pipeline", "--as-of", AS_OF)
    spaces = catalog.result("spaces", "list")["spaces"]
    assert [space["state"] for space in spaces] == ["serving"]


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


def test_a_retrained_space_is_promoted_and_rolled_back(catalog: Catalog) -> None:
    catalog.run("pipeline", "--as-of", AS_OF, "--retrain")
    first, second = (space["space_id"] for space in catalog.result("spaces", "list")["spaces"])
    catalog.run("spaces", "promote", second)
    assert catalog.exported("embeddings", AS_OF)
    states = {space["space_id"]: space["state"] for space in catalog.result("spaces", "list")["spaces"]}
    assert states == {first: "ready", second: "serving"}
    catalog.run("spaces", "rollback")

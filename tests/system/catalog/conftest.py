"""A schema of a Hive metastore, and commands on it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.builders import AS_OF, SPARK, pipeline_values
from tests.support.metastore import hive_metastore


def hive_settings(metastore: str, warehouse: Path) -> dict[str, str]:
    """Return the settings of a session whose catalog is a metastore."""
    return {
        "spark.sql.catalogImplementation": "hive",
        "spark.hadoop.hive.metastore.uris": metastore,
        "spark.sql.warehouse.dir": str(warehouse),
    }


class Catalog:
    """A schema of a metastore, and commands on it, each in a process of its own."""

    def __init__(self, folder: Path, log: Path, metastore: str) -> None:
        values = pipeline_values(log, "")
        del values["root"]
        hive = hive_settings(metastore, folder / "warehouse")
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

    def exported(self, what: str, as_of: date) -> dict[str, str]:
        """Export, and return the hashes of the parts."""
        out = self.folder / f"{what}-{as_of}"
        self.run("export", what, "--as-of", as_of, "--out", out)
        return dict(json.loads((out / "_manifest.json").read_text())["sha256"])

    def result(self, *arguments: object) -> dict[str, Any]:
        return dict(json.loads(self.run(*arguments, "--json")))


@pytest.fixture(scope="module")
def metastore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with hive_metastore(tmp_path_factory.mktemp("metastore")) as uri:
        yield uri


@pytest.fixture(scope="module")
def catalog(log: Path, metastore: str, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalog after a pipeline."""
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), log, metastore)
    catalog.run("pipeline", "--as-of", AS_OF)
    return catalog

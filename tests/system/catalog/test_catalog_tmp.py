"""Tables of a Hive metastore do what all tables do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.worlds import SPARK_CONF
from tests.system.catalog.conftest import hive_settings

pytestmark = pytest.mark.full

REPOSITORY = Path(__file__).parents[3]
SUITE = "tests/unit/store/test_spark_tables.py::TestSparkTablesOfACatalog"


def test_tables_of_a_hive_metastore_pass_the_conformance_suite(metastore: str, tmp_path: Path) -> None:
    settings = json.dumps(hive_settings(metastore, tmp_path / "warehouse"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SUITE, "-k", "earlier_versions or knows_the_schema"]
    ran = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {SPARK_CONF: settings}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout

"""Features of a catalog are those below a root, to the byte, after a pipeline and after a night."""

from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from tests.system.catalog.conftest import Catalog
from userrep.workflows.daily import daily
from userrep.workflows.export import export_features
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full

NEXT = AS_OF + timedelta(days=1)


def test_features_are_those_below_a_root_to_the_byte(
    catalog: Catalog, spark: SparkSession, log: Path, tmp_path: Path
) -> None:
    catalog.run("daily", "--as-of", NEXT, "--as-if-on-time")
    config = pipeline_config(log, tmp_path / "root")
    run_pipeline(RunContext(config, spark, AS_OF))
    night = RunContext(config, spark, NEXT)
    daily(night, on_time=True)
    for as_of in (AS_OF, NEXT):
        below = export_features(night.tables, config, as_of, str(tmp_path / f"{as_of}"))
        assert catalog.exported("features", as_of) == below["sha256"]

"""Tables in an object store do what all tables do."""

import uuid

import pytest
from pyspark.sql import SparkSession

from tests.support.conformance import Conformance
from tests.system.s3.conftest import Bucket
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.full


class TestFileTablesOnS3(Conformance):
    @pytest.fixture
    def tables(self, spark: SparkSession, bucket: Bucket) -> Tables:
        return FileTables(spark, f"{bucket.uri}/tables-{uuid.uuid4().hex[:8]}")

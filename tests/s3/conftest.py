"""A bucket behind a store that can be made busy, as Spark, pyarrow and delta-rs see it."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.fs
import pytest
from pyspark.sql import SparkSession

from tests.busy_store import BusyStore, busy_store
from tests.s3_server import ENVIRONMENT, s3_server


class Bucket(NamedTuple):
    """Its URI as Spark has it, and the store that it is in."""

    uri: str
    store: BusyStore


@pytest.fixture(scope="package")
def bucket(spark: SparkSession) -> Iterator[Bucket]:
    with s3_server() as server, busy_store(server) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": store.endpoint, "AWS_ALLOW_HTTP": "true"}).items():
            patch.setenv(name, value)
            patch.setitem(spark.sparkContext.environment, name, value)  # of Python workers; the JVM is older than this
        settings = {
            "fs.s3a.endpoint": store.endpoint,
            "fs.s3a.endpoint.region": "us-east-1",
            "fs.s3a.path.style.access": "true",
            "fs.s3a.access.key": "test",
            "fs.s3a.secret.key": "test",
            "fs.s3a.retry.throttle.interval": "20ms",
            "fs.s3a.retry.interval": "20ms",
        }
        for key, value in settings.items():
            spark.conf.set(key, value)
        pyarrow.fs.S3FileSystem(endpoint_override=server, allow_bucket_creation=True).create_dir("lake")
        yield Bucket("s3a://lake", store)
        for key in settings:
            spark.conf.unset(key)

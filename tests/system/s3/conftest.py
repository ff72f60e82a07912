"""A bucket behind a store that can be made busy, as Spark, pyarrow and delta-rs see it."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import pipeline_config
from tests.support.busy_store import BusyStore, busy_store
from tests.support.s3_server import ENVIRONMENT, s3_server
from userrep.config import Config
from userrep.store.filesystem import file_system
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.workflows.daily import daily
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

SMALL = LogSpec(num_users=80, num_items=40, first_day=date(2024, 1, 1), num_days=28, events_per_user_day=1.0, seed=3)
AS_OF = date(2024, 1, 27)
SHARE = 0.02  # of requests that fail


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


def config_on(log: str, root: str) -> Config:
    return pipeline_config(
        log,
        root,
        windows_days=[3, 7],
        items=None,
        users=None,
        onboarding=None,
        item_vectors={"behaviour": {"kind": "als", "dim": 4, "iterations": 1, "refit_days": 7}},
        model={"latent_dim": 8},
        training={
            "as_ofs": {"until": "2024-01-25", "every_days": 3}, "future_days": [3], "num_shards": 2, "batch_size": 32,
            "max_epochs": 2,
        },
        snapshots={"history_dates": 2},
    )  # fmt: skip


@pytest.fixture(scope="package")
def work(spark: SparkSession, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """A pipeline that has run, and a night after it, while requests failed."""
    folder = tmp_path_factory.mktemp("log")
    generate_log(spark, SMALL, str(folder))
    files, base = file_system(f"{bucket.uri}/log/events")
    events = pq.read_table(folder / "events").drop_columns("ingest_date")
    last = events.sort_by([("event_at", "descending")]).slice(0, 1)  # with it, one of the log's last day is malformed
    no_item = pa.nulls(1, events.schema.field("item_id").type)
    events = pa.concat_tables([events, last.set_column(last.column_names.index("item_id"), "item_id", no_item)])
    for part in range(2):
        pq.write_table(events.take(pa.array(range(part, len(events), 2))), f"{base}/{part}.parquet", filesystem=files)
    config = config_on(f"{bucket.uri}/log", f"{bucket.uri}/my root")
    bucket.store.take_counts()
    with bucket.store.failing(SHARE, seed=1):
        run_pipeline(RunContext(config, spark, AS_OF))
        daily(RunContext(config, spark, AS_OF + timedelta(days=1)), on_time=True)
    failed = bucket.store.take_counts()["failed"]
    assert min(failed[kind] for kind in ("SlowDown", "InternalError", "lost")) >= 5, failed
    return RunContext(config, spark, AS_OF + timedelta(days=1))

"""A driver: builds tiles, item vectors and features of one date.

spark-submit tests/system/cluster/build.py CONFIG AS_OF
"""

import sys
from datetime import date

from pyspark.sql import SparkSession

from userrep.config import Config, load_config
from userrep.logs import log_to_stderr
from userrep.spark.session import get_session
from userrep.workflows.data_stages import build_activity_tiles, build_user_features, train_item_vectors
from userrep.workflows.run_context import RunContext


def build(spark: SparkSession, config: Config, as_of: date) -> None:
    work = RunContext(config, spark, as_of)
    build_activity_tiles(work)
    train_item_vectors(work, [as_of])
    build_user_features(work, [as_of])


if __name__ == "__main__":
    file, day = sys.argv[1:]
    log_to_stderr()
    build(get_session(), load_config(file, []), date.fromisoformat(day))

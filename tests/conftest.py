"""What all tests share: one Spark session."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from userrep.session import get_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = get_session(
        master="local[2]", conf={"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"}, app_name="tests"
    )
    yield session
    session.stop()

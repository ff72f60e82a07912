"""The users of a snapshot, in files and in tables that only Spark reads: the same users through both."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.audience_world import AudienceWorld, audience_world
from tests.support.builders import left_to_spark
from userrep.audiences.snapshot_users import SCORES, SnapshotUsers
from userrep.store.file_tables import FileTables
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.default


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> AudienceWorld:
    return audience_world(tmp_path_factory.mktemp("world"), num_users=400, dim=3)


@pytest.fixture(params=["files", "spark"])
def users(request: pytest.FixtureRequest, spark: SparkSession, world: AudienceWorld) -> SnapshotUsers:
    if request.param == "files":
        return SnapshotUsers(world.tables, world.made)
    return SnapshotUsers(left_to_spark(FileTables(spark, world.tables.location)), world.made)


def first_number() -> Callable[[pa.Table], pa.Table]:
    """Return a function, for Spark's workers too, that scores users by the first number of their vector.

    Scores are rounded so that some are equal. One user is left out.
    """
    schema = SCORES

    def score(rows: pa.Table) -> pa.Table:
        rows = rows.filter(pa.array([user != "u0007" for user in rows["user_id"].to_pylist()]))
        scores = [float(round(vector[0])) for vector in rows["embedding"].to_pylist()]
        return pa.table([rows["user_id"], pa.array(scores, pa.float64())], schema)

    return score


def test_known_users_are_found_with_their_vectors(users: SnapshotUsers, world: AudienceWorld) -> None:
    asked = pa.array(["u0003", "new", "u0399"])
    rows = users.rows_of(asked)
    vectors = dict(zip(rows["user_id"].to_pylist(), rows["embedding"].to_pylist(), strict=True))
    assert vectors == {"u0003": world.x_ND[3].tolist(), "u0399": world.x_ND[399].tolist()}
    assert users.rows_of(asked, ["user_id"]).column_names == ["user_id"]
    assert len(users.rows_of(pa.array([], pa.string()))) == 0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, 3.0])
def test_a_sample_has_the_users_of_the_lowest_buckets(users: SnapshotUsers, world: AudienceWorld, share: float) -> None:
    is_sampled_N = bucket_of(world.user_ids) < share * 2**20
    assert (
        sorted(users.sample(share)["user_id"].to_pylist()) == world.user_ids.filter(pa.array(is_sampled_N)).to_pylist()
    )


@pytest.mark.parametrize("num_users", [1, 30, 1000])
def test_the_best_are_in_order_and_ties_by_id(users: SnapshotUsers, world: AudienceWorld, num_users: int) -> None:
    score_N = np.round(world.x_ND[:, 0].astype(np.float64))
    expected = sorted((-score, user) for score, user in zip(score_N, world.user_ids.to_pylist(), strict=True))
    found = users.best(first_number(), num_users)
    assert found["user_id"].to_pylist() == [user for _, user in expected if user != "u0007"][:num_users]

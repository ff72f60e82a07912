"""Look-ups for services: the newest of each user, of one space alone."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from deploy.services import RedisServer
from tests.support.builders import AS_OF
from tests.support.streaming_world import DAY, NEXT, NewWorld, World, arrive, events_between
from userrep.errors import UsageError, UserrepError
from userrep.spaces.registry import add_candidate, find_space
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.streaming import lookup
from userrep.streaming.redis_store import OnlineStore

pytestmark = pytest.mark.default


@pytest.fixture(scope="module")
def url(redis_server: RedisServer) -> str:
    """A database of its own: others stream the same users of the same space."""
    return f"{redis_server.url.removesuffix('/0')}/1"


@pytest.fixture(scope="module")
def world(new_world: NewWorld, url: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A stream that has met the first 40 events of a day."""
    arriving = tmp_path_factory.mktemp("lookup") / "arriving"
    world = new_world(events={"path": str(arriving)}, redis={"url": url})
    arrive(arriving, events_between(world.spark, world.log, AS_OF, AS_OF + DAY)[:40], "0.parquet")
    world.stream()
    return world


@pytest.fixture(scope="module")
def config(world: World) -> str:
    path = world.folder / "lookup.yaml"
    path.write_text(yaml.safe_dump(world.config.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return str(path)


def test_the_newest_of_each_user_is_found(world: World, config: str) -> None:
    streamed = {row.user_id: row for row in world.updates().collect()}
    published = world.tables.read(USER_EMBEDDINGS).where(f"as_of = DATE'{AS_OF}'").limit(200).collect()
    other = next(row for row in published if row.user_id not in streamed)
    user = next(iter(streamed))
    found, snapshot, nobody = lookup([user, other.user_id, "nobody"], config=config)
    assert nobody is None
    assert found is not None
    assert (found.space_id, found.as_of) == (world.space.space_id, NEXT)
    np.testing.assert_array_equal(found.vector, np.array(streamed[user].embedding, np.float32))
    assert snapshot is not None
    assert (snapshot.as_of, snapshot.event_at) == (AS_OF, None)
    np.testing.assert_array_equal(snapshot.vector, np.array(other.embedding, np.float32))


def test_a_foreign_space_is_refused(world: World, config: str, url: str) -> None:
    with pytest.raises(UsageError, match="space s999-none: not in the registry"):
        lookup(["u"], config=config, space="s999-none")
    made = find_space(world.tables, None)
    names = {"lineage_id": made.lineage_id, "trained_until": made.trained_until, "content_hash": made.content_hash}
    add_candidate(world.tables, space_id="s900-new", **names)
    with pytest.raises(UsageError, match="space s900-new has no published snapshot"):
        lookup(["u"], config=config, space="s900-new")
    store = OnlineStore(url, DAY)
    times, z_UD = np.array([2**50]), np.zeros((1, 3), np.float32)
    store.write(made.space_id, NEXT, ["stranger"], event_at_U=times, num_records_U=np.array([1]), z_UD=z_UD)
    with pytest.raises(UserrepError, match=r"vectors of another width for space \S+, expected 48, got 3"):
        lookup(["stranger"], config=config)


def test_a_store_that_is_away_is_one_line(config: str, tmp_path: Path) -> None:
    values = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    values["stream"]["redis"] = {"url": "redis://:secret@127.0.0.1:1/0"}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserrepError, match=r"^lookup: Redis at redis://127\.0\.0\.1:1/0 does not answer \(Conn"):
        lookup(["u"], config=str(other))

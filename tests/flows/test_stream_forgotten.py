"""An erasure reaches everything that a root holds: all tables, exports, the online store, the state of streams."""

from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.nights import files_naming
from deploy.services import RedisServer
from tests.support.builders import AS_OF
from tests.support.streaming_world import DAY, NEXT, NewWorld, arrive, events_between
from userrep.erasure.requests import Erasure
from userrep.errors import UsageError
from userrep.features.ledger import features_table
from userrep.items.versions import lineage_of
from userrep.spaces.snapshots import list_snapshots, publish_snapshots, stage_snapshots
from userrep.store import schemas
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables
from userrep.streaming.redis_store import OnlineStore
from userrep.workflows.export import export_embeddings, export_features

pytestmark = pytest.mark.default

KEYED = (schemas.USER_ITEM_DAYS, schemas.USER_PROFILES, schemas.USER_WINDOW_SUMS, schemas.USER_OPENINGS)


def rows_of(tables: Tables, table: TableSchema) -> list[Any]:
    """Return all rows as text, sorted."""
    return sorted(map(str, tables.read(table).collect()))


@pytest.mark.full
def test_an_erased_user_is_removed_from_tables_exports_and_stores_and_all_other_rows_stay(
    new_world: NewWorld, redis_server: RedisServer, tmp_path: Path
) -> None:
    url = f"{redis_server.url.removesuffix('/0')}/2"
    world = new_world(tmp_path, own_log=True, events={"path": str(tmp_path / "arriving")}, redis={"url": url})
    world.close(AS_OF - DAY)  # window sums, and openings for the stream
    events = events_between(world.spark, world.log, AS_OF - 2 * DAY, NEXT)  # of all open days
    event = next(row for row in events if row["user_id"] and row["item_id"] and row["event_at"].date() == AS_OF)
    user = event["user_id"]
    arrive(tmp_path / "arriving", [*events, {**event, "item_id": None}], "0.parquet")
    world.stream()
    tables, lineage_id = world.tables, lineage_of(world.config)
    features = features_table(world.config, lineage_id)
    export_embeddings(tables, world.config, world.space, AS_OF, str(tmp_path / "embeddings"))
    export_features(tables, world.config, AS_OF, str(tmp_path / "features"))
    everything = (*KEYED, features, schemas.USER_EMBEDDINGS, schemas.EMBEDDING_UPDATES, schemas.REJECTED_EVENTS)
    before = {table.name: rows_of(tables, table) for table in everything}
    assert all(any(user in row for row in rows) for rows in before.values())
    with redis.Redis.from_url(url) as store:
        keys = set(store.keys("*"))
        mine = {key for key in keys if key.decode().endswith(f":{user}")}
        assert mine

        receipt = Erasure(tables, world.config, [user, "nobody"]).run(now=True)

        assert set(store.keys("*")) == keys - mine
    assert files_naming(tmp_path / "root", user) == files_naming(tmp_path / "embeddings", user) == []
    assert files_naming(tmp_path / "features", user) == []
    for table in everything:
        assert rows_of(tables, table) == [row for row in before[table.name] if user not in row], table.name
    assert set(receipt["rows"]) == set(before)
    assert receipt["num_with_rows"] == 1
    assert set(receipt["exports"].values()) == {"1 rows"}
    assert receipt["training_sets"]
    assert list(receipt["streams"]) == ["stream"]

    # A snapshot of the features without the user passes the gates.
    (staged,) = stage_snapshots(tables, world.config, world.space, [AS_OF])
    publish_snapshots(tables, world.config, world.space, [staged], on_time=True)
    before_it, published = list_snapshots(tables, world.space.space_id)[-2:]
    assert published.num_users == before_it.num_users < len(before[features.name])

    with pytest.raises(UsageError, match="--new-query-id"):
        world.stream()
    world.stream(new_query_id="again")  # reads the events of the user again
    assert files_naming(tmp_path / "root", user) == []
    world.close(AS_OF)  # and so does the daily run
    assert files_naming(tmp_path / "root", user) == []
    assert world.agreement(NEXT).is_equal
    assert world.tables.read(schemas.USER_EMBEDDINGS).where(f"as_of = DATE'{NEXT}'").count() > 500


def test_the_online_store_deletes_users_by_id_and_by_predicate(redis_server: RedisServer) -> None:
    url = f"{redis_server.url.removesuffix('/0')}/3"
    store = OnlineStore(url, DAY)
    with redis.Redis.from_url(url) as server:
        names = [f"u{k:04d}" for k in range(1200)]
        server.mset({f"userrep:{space}:{name}": "v" for space in ("a", "b") for name in names})
        assert store.delete("a", [*names[:700], "nobody"]) == 700
        assert store.delete_where("b", lambda user: user.endswith("7")) == 120
        assert server.dbsize() == 2400 - 820
        assert not server.exists("userrep:b:u0017")
        assert server.exists("userrep:a:u0717")

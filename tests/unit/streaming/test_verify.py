"""Whether stream and batch agree on an as-of date: the last streamed vectors against the newest snapshot's."""

from datetime import date, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import at
from userrep.errors import UsageError
from userrep.spaces.registry import add_candidate, find_space
from userrep.spaces.snapshots import PUBLISHED, Snapshot, record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, TILE_DAYS, USER_EMBEDDINGS, USER_ITEM_DAYS
from userrep.store.tables import Tables
from userrep.streaming.verify import StreamAgreement, verify_updates

pytestmark = pytest.mark.default

DAY, AS_OF, OTHER = date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 3)
NOON = at("2024-05-01 12:00:00")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A space with two revisions of a snapshot, streamed vectors, and a day of tiles."""
    tables = FileTables(spark, str(tmp_path_factory.mktemp("verify")))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=DAY, content_hash="c")
    published = {"same": [1.0, 2.0], "differs": [3.0, 4.0], "unstreamed": [5.0, 6.0], "inactive": [7.0, 8.0]}
    record_snapshots(
        tables,
        [Snapshot(f"s1-{k}", "s1", AS_OF, k, PUBLISHED, "x", 4, NOON, NOON, "") for k in (1, 2)],
    )
    tables.add(USER_EMBEDDINGS, [snapshot_row(user, 1, [0.0, 0.0]) for user in published])
    tables.add(USER_EMBEDDINGS, [snapshot_row(user, 2, vector) for user, vector in published.items()])
    later, earlier = at("2024-05-01 13:00:00"), at("2024-05-01 11:00:00")
    tables.add(
        EMBEDDING_UPDATES,
        [
            update("same", NOON, later, [0.0, 0.0]),
            update("same", later, earlier, [1.0, 2.0]),  # of the newest event, though computed earlier
            update("differs", NOON, later, [3.0, 4.5]),  # of one event, the latest computation
            update("differs", NOON, earlier, [3.0, 4.0]),
            update("unpublished", NOON, NOON, [9.0, 9.0]),
            update("unstreamed", NOON, NOON, [5.0, 6.0], as_of=OTHER),
            update("unstreamed", NOON, NOON, [5.0, 6.0], space_id="s2"),
        ],
    )
    tables.add(USER_ITEM_DAYS, [tile(user, DAY) for user in ("same", "differs", "unstreamed", "unpublished")])
    tables.add(USER_ITEM_DAYS, [tile("inactive", date(2024, 4, 30)), tile("inactive", AS_OF)])
    tables.add(TILE_DAYS, [tile_day(day) for day in (date(2024, 4, 30), DAY, AS_OF)])
    return tables


def snapshot_row(user: str, revision: int, vector: list[float]) -> Row:
    return filled(USER_EMBEDDINGS, space_id="s1", as_of=AS_OF, revision=revision, user_id=user, embedding=vector)


def update(user: str, event_at: datetime, computed_at: datetime, vector: list[float], **more: Any) -> Row:
    row = {"space_id": "s1", "as_of": AS_OF, "user_id": user, "event_at": event_at, "computed_at": computed_at}
    return row | {"query_id": "q", "batch_id": 0, "is_new": False, "embedding": vector} | more


def tile(user: str, day: date) -> Row:
    return filled(USER_ITEM_DAYS, event_date=day, revision=1, user_id=user, item_id="i", num_events=1)


def tile_day(day: date) -> Row:
    return filled(TILE_DAYS, event_date=day, revision=1, num_events=1, num_tiles=1, built_at=NOON)


def filled(table: Any, **known: Any) -> Row:
    """Build a row of a table; what is not named is null."""
    return dict.fromkeys(table.fields().names) | known


def test_of_each_active_or_streamed_user_the_last_streamed_vector_is_compared_with_the_newest_snapshot(
    tables: Tables,
) -> None:
    found = verify_updates(tables, find_space(tables, "s1"), AS_OF)
    assert found == StreamAgreement(equal=1, different=1, not_streamed=1, not_in_snapshot=1)
    assert not found.is_equal
    assert found.share_equal == 0.25


@pytest.mark.parametrize(
    ("space_id", "as_of", "said"),
    [
        ("s1", OTHER, r"space s1 has no snapshot of 2024-05-03; dates published: 2024-05-02\."),
        ("s2", AS_OF, "space s2 has no snapshot of 2024-05-02; dates published: none"),
    ],
)
def test_a_date_without_a_snapshot_is_refused(tables: Tables, space_id: str, as_of: date, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        verify_updates(tables, find_space(tables, space_id), as_of)


def test_a_date_without_streamed_vectors_is_refused(tables: Tables) -> None:
    record_snapshots(tables, [Snapshot("s1-d", "s1", DAY, 1, PUBLISHED, "x", 0, NOON, NOON, "")])
    with pytest.raises(UsageError, match="stream verify: no streamed vectors of space s1 for as-of date 2024-05-01"):
        verify_updates(tables, find_space(tables, "s1"), DAY)


@pytest.mark.parametrize(
    ("counts", "is_equal", "share"),
    [((3, 0, 0, 0), True, 1.0), ((0, 0, 0, 0), True, 0.0), ((3, 1, 0, 0), False, 0.75), ((1, 0, 0, 1), False, 0.5)],
)
def test_only_when_nothing_differs_or_is_missing_do_both_agree(
    counts: tuple[int, int, int, int], is_equal: bool, share: float
) -> None:
    assert (StreamAgreement(*counts).is_equal, StreamAgreement(*counts).share_equal) == (is_equal, share)

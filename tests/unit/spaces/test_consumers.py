"""Consumers in the stored registry: registered, pinned, ready, trained, removed."""

import threading
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.unit.spaces.test_transitions import NAMES, A, B
from userrep.errors import PromotionRefusedError, UsageError
from userrep.spaces import consumers
from userrep.spaces.registry import Space, add_candidate, find_space, mark_ready, promote, read_registry
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path))


def with_spaces(tables: Tables, *ids: str) -> None:
    """Register ready spaces; the first one serves."""
    for space_id in ids:
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, ids[0]))


def space_of(tables: Tables, name: str) -> Space:
    """Return the space that a consumer uses: the one it is pinned to, or the one that serves."""
    registry = read_registry(tables)
    return registry.space(registry.consumer(name).pinned_space_id)


def test_a_promotion_names_each_consumer_that_blocks_it_with_the_cure_and_changes_nothing(tables: Tables) -> None:
    with_spaces(tables, A, B)
    for name in NAMES:
        consumers.register_consumer(tables, name, owner=f"{name}@corp", pin=A if name == "mail" else None)
    before = tables.version(REGISTRY)
    with pytest.raises(PromotionRefusedError, match="2 consumers that follow are not ready for it") as caught:
        promote(tables, find_space(tables, B))
    _, *cures = str(caught.value).splitlines()
    assert cures == [
        f"consumer {name} (owner {name}@corp): run `userrep consumers ready {name} {B}` once its model is trained on "
        f"that space, or `userrep consumers pin {name} {A}` to let it stay."
        for name in ("ads", "search")
    ]
    assert tables.version(REGISTRY) == before
    consumers.declare_ready(tables, "ads", B)
    consumers.pin_consumer(tables, "search", A)
    promote(tables, find_space(tables, B))
    assert {name: space_of(tables, name).space_id for name in NAMES} == {
        "ads": B, "search": A, "mail": A,
    }  # fmt: skip


def test_all_that_is_known_of_a_consumer_is_kept(tables: Tables) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "ads", owner="team A, Grüße", pin=B)
    consumers.register_consumer(tables, "ads", owner="team A, Grüße")  # its owner may repeat it
    consumers.declare_ready(tables, "ads", A)
    before = read_registry(tables).consumer("ads")
    consumers.record_training_set(tables, "ads", training_set_id="t1", snapshot_ids=["x-r1", "x-r2"])
    found = read_registry(tables).consumer("ads")
    assert found.last_seen_at > before.last_seen_at >= before.registered_at
    assert found == replace(
        before, training_set_id="t1", snapshot_ids=("x-r1", "x-r2"), last_seen_at=found.last_seen_at
    )
    assert (found.owner, found.pinned_space_id, found.ready_for, found.follows) == ("team A, Grüße", B, A, False)
    consumers.pin_consumer(tables, "ads", "serving")
    assert read_registry(tables).consumer("ads").follows
    consumers.remove_consumer(tables, "ads")
    with pytest.raises(UsageError, match=r"consumer ads: not registered\. Known consumers: none"):
        read_registry(tables).consumer("ads")


def test_changes_of_many_consumers_at_once_are_all_kept(tables: Tables) -> None:
    with_spaces(tables, A)
    names = [f"c{k}" for k in range(8)]
    threads = [
        threading.Thread(target=lambda name=name: consumers.register_consumer(tables, name, owner="team"))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.name for c in read_registry(tables).consumers] == names


def test_the_space_of_a_consumer_is_that_of_the_registry_as_it_is_now(tables: Tables) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "ads", owner="team")
    consumers.register_consumer(tables, "mail", owner="team", pin=A)
    consumers.declare_ready(tables, "ads", B)
    promote(tables, find_space(tables, B))
    assert [space_of(tables, name).space_id for name in ("ads", "mail")] == [B, A]
    consumers.pin_consumer(tables, "mail", "serving")
    assert space_of(tables, "mail").space_id == B
    consumers.remove_consumer(tables, "ads")
    with pytest.raises(UsageError, match=r"consumer ads: not registered\. Known consumers: mail"):
        space_of(tables, "ads")

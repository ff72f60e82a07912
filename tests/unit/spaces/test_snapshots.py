"""The ledger of snapshots: revisions, times of availability, gates, and what is stale."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from tests.unit.inference.test_model import saved
from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.features.ledger import feature_sets
from userrep.spaces import snapshots
from userrep.spaces.gates import SnapshotStats
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import (
    Snapshot,
    list_snapshots,
    newest_snapshot,
    publish_snapshots,
    record_snapshots,
    restage_refused,
    snapshot_inputs,
    stage_snapshots,
    staged_snapshots,
)
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS, SNAPSHOTS
from userrep.store.tables import Keys, PartitionStatistics, Tables
from userrep.store.vector_storage import VectorStorage

pytestmark = pytest.mark.fast

D1, D2, D3, D4, D5 = (date(2024, 5, day) for day in range(1, 6))
NOW = datetime(2024, 6, 1, 12)
DIM = 16  # of the saved artifact


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path, snapshots={"publish_delay": "9h"}, gates={"min_rows_share": 0.5})


@pytest.fixture
def tables(config: Config) -> Tables:
    tables = open_tables(config, None)
    manifest = saved(Path(str(config.root)), space_id="s001-a", is_space=True)
    add_spaces(tables, "s001-a", content_hash=manifest.content_hash)
    return tables


@pytest.fixture
def space(tables: Tables) -> Space:
    return find_space(tables, "s001-a")


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> dict[date, SnapshotStats]:
    """Aggregates of staged rows, in place of those that Spark computes."""
    known: dict[date, SnapshotStats] = {}

    def of_rows(keys: Keys, *, dim: int, storages: dict[date, VectorStorage]) -> dict[date, SnapshotStats]:
        assert dim == DIM
        assert set(storages.values()) == {VectorStorage()}
        assert {key["space_id"] for key in keys} == {"s001-a"}
        return known

    monkeypatch.setattr(snapshots, "utc_now", lambda: NOW)
    monkeypatch.setattr(Tables, "read", lambda _self, _table, keys: keys)
    monkeypatch.setattr(snapshots, "snapshot_stats", of_rows)
    return known


def stage(tables: Tables, sizes: dict[date, int], revision: int = 1) -> list[Snapshot]:
    """Record staged snapshots of so many users."""
    staged = [replace(snapshot(day, revision, state="staged"), num_users=num) for day, num in sizes.items()]
    record_snapshots(tables, staged)
    return staged


def sound(num_users: int) -> SnapshotStats:
    return SnapshotStats(num_users, num_users, 0, DIM)


def build_features(tables: Tables, **log_hashes: date) -> None:
    """Record features of dates; the argument's name is their hash."""
    row = {"lineage_id": "l1", "sides_hash": "x", "num_users": 2, "num_inexact": 0, "built_at": NOW}
    tables.add(
        FEATURE_SETS, [row | {"as_of": day, "valid_from": day, "log_hash": of} for of, day in log_hashes.items()]
    )


def test_snapshots_are_listed_by_date_and_revision_and_only_published_ones_by_default(tables: Tables) -> None:
    ledger = [
        snapshot(D2, 10), snapshot(D2, 9), snapshot(D1, 3), snapshot(D3, state="staged"),
        snapshot(D3, 2, state="expired"), snapshot(D1, space="s002-b"),
    ]  # fmt: skip
    record_snapshots(tables, ledger)
    assert [(s.as_of, s.revision) for s in list_snapshots(tables, "s001-a")] == [(D1, 3), (D2, 9), (D2, 10)]
    other = list_snapshots(tables, "s001-a", states=("expired", "staged"))
    assert other == [ledger[3], ledger[4]]


def test_the_newest_snapshot_of_a_date_is_its_highest_published_revision(tables: Tables) -> None:
    record_snapshots(tables, [snapshot(D1, 10), snapshot(D1, 9), snapshot(D1, 11, state="refused"), snapshot(D2)])
    assert newest_snapshot(tables, "s001-a", D1).revision == 10
    with pytest.raises(UsageError, match=r"no snapshot of 2024-05-03; dates published: 2024-05-01, 2024-05-02\. "):
        newest_snapshot(tables, "s001-a", D3)
    with pytest.raises(
        UsageError, match=r"dates published: none\. Build it with `userrep pipeline --as-of 2024-05-01`"
    ):
        newest_snapshot(tables, "s002-b", D1)


def test_the_newest_snapshot_in_other_states_is_found_or_its_dates_are_named(tables: Tables) -> None:
    states, staged = ("staged", "published"), snapshot(D2, revision=2, state="staged")
    record_snapshots(tables, [snapshot(D2), staged, snapshot(D2, revision=3, state="refused"), snapshot(D3)])
    assert newest_snapshot(tables, "s001-a", D2, states=states) == staged
    wanted = (
        r"no snapshot of 2024-05-01; dates staged or published: 2024-05-02, 2024-05-03\. Build it with "
        r"`userrep run embed_users --as-of 2024-05-01`\.$"
    )
    with pytest.raises(UsageError, match=wanted):
        newest_snapshot(tables, "s001-a", D1, states=states)


def test_a_recorded_snapshot_takes_the_place_of_its_earlier_state(tables: Tables) -> None:
    record_snapshots(tables, [snapshot(D1, state="staged"), snapshot(D2)])
    record_snapshots(tables, [snapshot(D1)])
    assert sorted((row.as_of, row.state) for row in tables.ledger(SNAPSHOTS)) == [(D1, "published"), (D2, "published")]


def test_rows_of_a_snapshot_are_selected_by_space_date_and_revision() -> None:
    assert snapshot(D1, 3).key == {"space_id": "s001-a", "as_of": D1, "revision": 3}
    assert snapshot(D1, dim=16).dim == 16
    assert (snapshot(D1).dim, replace(snapshot(D1), gates="").dim) == (None, None)


def test_a_date_gets_a_new_revision_after_all_that_were_ever_judged(
    tables: Tables, config: Config, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Any, list[Snapshot]]] = []

    def write(*arguments: Any) -> None:
        written.append((arguments[3], list_snapshots(tables, "s001-a", states=("begun",))))

    monkeypatch.setattr("userrep.spaces.snapshot_files.write_vectors", write)
    build_features(tables, one=D1, two=D2, three=D3, four=D4)
    record_snapshots(tables, [
        snapshot(D1, 2), snapshot(D1, 1), snapshot(D2, 1, state="refused"), snapshot(D3, 4, state="expired"),
        snapshot(D4, 1, state="staged"), snapshot(D4, 7, space="s002-b"),
    ])  # fmt: skip
    staged = stage_snapshots(tables, config, space, [D4, D3, D1, D2])
    assert [(s.as_of, s.revision, s.snapshot_id) for s in staged] == [
        (D1, 3, "s001-a-20240501-r3"), (D2, 2, "s001-a-20240502-r2"), (D3, 5, "s001-a-20240503-r5"),
        (D4, 1, "s001-a-20240504-r1"),
    ]  # fmt: skip
    ((keys, begun),) = written
    facts = '{"storage": "float32"}'
    assert [replace(snapshot, state="staged", begun_by=None, gates=facts) for snapshot in begun] == staged
    assert keys == {snapshot.as_of: snapshot.key for snapshot in staged}
    assert list_snapshots(tables, "s001-a", states=("staged",)) == staged
    assert {(s.available_at, s.gates, s.num_users) for s in staged} == {(None, facts, 2)}
    with pytest.raises(
        UsageError, match=r"space s001-a: no features of 2024-05-05\. Build them with `userrep run build_user_f"
    ):
        stage_snapshots(tables, config, space, [D1, D5])


def test_the_first_revision_of_a_date_is_available_on_schedule_and_others_from_now_on(
    tables: Tables, config: Config, stats: dict[date, SnapshotStats]
) -> None:
    record_snapshots(tables, [snapshot(D1), snapshot(D2, state="refused"), snapshot(D3, state="expired")])
    stats |= {day: sound(2) for day in (D1, D2, D3, D4)}

    def published(on_time: bool, revision: int) -> dict[date, datetime | None]:
        staged = stage(tables, dict.fromkeys((D1, D2, D3, D4), 2), revision)
        return {
            s.as_of: s.available_at
            for s in publish_snapshots(tables, config, find_space(tables, "s001-a"), staged, on_time=on_time)
        }

    nine = timedelta(hours=9)
    assert published(True, 2) == {
        D1: NOW, D2: NOW, D3: NOW, D4: datetime(2024, 5, 4) + nine  # D3 has expired: its labels get no later knowledge
    }  # fmt: skip
    assert published(True, 3) == dict.fromkeys((D1, D2, D3, D4), NOW)
    assert {s.state for s in list_snapshots(tables, "s001-a", states=("staged", "refused"))} == {"refused"}


def test_a_snapshot_that_was_refused_before_is_available_from_now_on(
    tables: Tables, config: Config, stats: dict[date, SnapshotStats]
) -> None:
    stats[D1] = sound(2)
    (staged,) = stage(tables, {D1: 2})
    again = replace(staged, gates='{"storage": "float32", "was_refused": true}')
    record_snapshots(tables, [again])
    (found,) = publish_snapshots(tables, config, find_space(tables, "s001-a"), [again], on_time=True)
    assert found.available_at == NOW


def test_a_date_that_was_refused_and_staged_again_is_not_on_time_when_it_is_built_with_later_data(
    tables: Tables, config: Config, space: Space, stats: dict[date, SnapshotStats], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.spaces.snapshot_files.write_vectors", lambda *_: None)
    build_features(tables, one=D1)
    record_snapshots(tables, [replace(snapshot(D1, state="staged"), gates='{"was_refused": true}')])
    (staged,) = stage_snapshots(tables, config, space, [D1])  # the run that staged it again was killed
    stats[D1] = sound(2)
    (found,) = publish_snapshots(tables, config, space, [staged], on_time=True)
    assert (found.revision, found.available_at) == (2, NOW)


def test_a_snapshot_that_is_not_on_time_is_available_from_now_on(
    tables: Tables, config: Config, stats: dict[date, SnapshotStats]
) -> None:
    stats[D1] = sound(2)
    (found,) = publish_snapshots(tables, config, find_space(tables, "s001-a"), stage(tables, {D1: 2}), on_time=False)
    assert (found.state, found.available_at, found.dim) == ("published", NOW, DIM)
    assert list_snapshots(tables, "s001-a") == [found]


def test_each_snapshot_is_compared_with_the_last_published_one_before_it(
    tables: Tables, config: Config, stats: dict[date, SnapshotStats]
) -> None:
    published = {D1: 100, D2: 1000, D5: 1000}  # an earlier revision of D2 itself does not count
    record_snapshots(tables, [replace(snapshot(day), num_users=num) for day, num in published.items()])
    sizes = {D4: 15, D2: 60, D3: 30}  # D3 has half of D2, D4 half of D3
    stats |= {day: sound(num) for day, num in sizes.items()}
    done = publish_snapshots(
        tables, config, find_space(tables, "s001-a"), stage(tables, sizes, revision=2), on_time=True
    )
    assert [(s.as_of, s.state, s.num_users) for s in done] == [
        (D2, "published", 60), (D3, "published", 30), (D4, "published", 15),
    ]  # fmt: skip


def test_a_refused_snapshot_stays_unread_and_stops_no_other(
    tables: Tables, config: Config, stats: dict[date, SnapshotStats]
) -> None:
    record_snapshots(tables, [replace(snapshot(D1), num_users=100)])
    sizes = {D2: 40, D3: 50, D4: 30}  # D4 is compared with D3, not with D2
    stats |= {D2: sound(40), D3: sound(50)}
    with pytest.raises(GateRefusedError) as caught:
        publish_snapshots(tables, config, find_space(tables, "s001-a"), stage(tables, sizes), on_time=True)
    assert str(caught.value) == (
        "not published: snapshot s001-a-20240502-r1: it has 40 rows, the previous snapshot has 100 "
        "(gates.min_rows_share 0.5). snapshot s001-a-20240504-r1: it has no rows; it has 0 rows, the features have 30; "
        "only 0 of 16 dimensions vary (gates.min_live_dims_share 0.5); it has 0 rows, the previous snapshot has 50 "
        "(gates.min_rows_share 0.5). Snapshots that were published before stay available. Check the features of these "
        "dates, or the settings below gates."
    )
    assert [s.as_of for s in list_snapshots(tables, "s001-a")] == [D1, D3]
    refused = list_snapshots(tables, "s001-a", states=("refused",))
    assert [(s.as_of, s.available_at, len(json.loads(s.gates)["faults"])) for s in refused] == [
        (D2, None, 1), (D4, None, 4),
    ]  # fmt: skip


def test_a_refused_snapshot_is_staged_again_while_its_inputs_are_the_same(
    tables: Tables, config: Config, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_features(tables, one=D1, two=D2, three=D3, four=D4)
    inputs = {day: snapshot_inputs(space, of) for day, of in feature_sets(tables, space.lineage_id).items()}
    refused = [
        replace(
            snapshot(day, 2, state="refused"), inputs_hash=inputs[day] if day != D2 else "other features",
            gates=json.dumps({"num_rows": 2, "num_users": 2, "num_broken": 0}),
        )
        for day in (D1, D2, D3, D4)
    ]  # fmt: skip
    record_snapshots(tables, [*refused, snapshot(D4, 3)])  # a later revision of D4 was published
    stored = {("s001-a", day, 2): PartitionStatistics(1, 2, NOW) for day in (D1, D2, D4)}  # the rows of D3 are gone
    monkeypatch.setattr(type(tables), "partitions", lambda *_: stored)
    (again,) = restage_refused(tables, config, space, [D1, D2, D3, D4])
    assert (again.state, again.is_judged) == ("staged", True)
    assert again.facts == refused[0].facts | {"was_refused": True}
    assert list_snapshots(tables, "s001-a", states=("staged",)) == [again]
    assert restage_refused(tables, config, space, [D1, D2, D3, D4]) == []
    other = config.model_copy(update={"snapshots": config.snapshots.model_copy(update={"storage": "int8"})})
    record_snapshots(tables, [refused[0]])
    assert restage_refused(tables, other, space, [D1]) == []
    stored["s001-a", D1, 2] = PartitionStatistics(1, 1, NOW)  # a user was erased
    assert restage_refused(tables, config, space, [D1]) == []
    stored["s001-a", D1, 2] = PartitionStatistics(1, 2, NOW)
    record_snapshots(tables, [replace(refused[0], gates=json.dumps({"num_rows": 2, "num_users": 2, "num_broken": 1}))])
    assert restage_refused(tables, config, space, [D1]) == []


def test_staged_snapshots_come_in_the_order_of_the_dates_asked_for(tables: Tables, space: Space) -> None:
    record_snapshots(
        tables, [snapshot(D1, state="staged"), snapshot(D2, 2, state="staged"), snapshot(D2), snapshot(D3)]
    )
    found: list[Any] = staged_snapshots(tables, space, [D2, D1])
    assert [s.snapshot_id for s in found] == ["s001-a-20240502-r2", "s001-a-20240501-r1"]
    with pytest.raises(
        UsageError, match=r"no staged snapshot of 2024-05-03, 2024-05-04\. Run `userrep run embed_users` first"
    ):
        staged_snapshots(tables, space, [D1, D3, D4])

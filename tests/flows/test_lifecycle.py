"""Spaces, snapshots, consumers, joins and erasure in any order, against an oracle that keeps it all in dicts.

Each step is commits to real tables, a second or so; so the default tier takes few walks. USERREP_FUZZ=20 takes more.
"""

import shutil
import tempfile
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from tests.support.embedding_tables import Oracle, Vector, publish, snapshot
from tests.support.hostile import TIMES
from userrep.erasure.requests import Erasure
from userrep.errors import PromotionRefusedError, UsageError
from userrep.joins.join import join_embeddings
from userrep.spaces import consumers, registry
from userrep.spaces.snapshots import EXPIRED, Snapshot, list_snapshots, record_snapshots
from userrep.store.open import open_tables
from userrep.store.schemas import USER_EMBEDDINGS

pytestmark = pytest.mark.default

SPACES, USERS, CONSUMERS = ("s001-a", "s002-b"), [f"u{k}" for k in range(5)], ("ads", "search")
START = date(2024, 5, 1)
HOURS = st.integers(0, 24 * 6)


class Lifecycle(RuleBasedStateMachine):
    """What any order of commands may do; ``vectors`` holds what each snapshot has, by space."""

    spark: ClassVar[SparkSession]

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.config = config_of(self.folder)
        self.tables = open_tables(self.config, self.spark)
        self.vectors: dict[str, dict[Snapshot, dict[str, Vector]]] = {}
        self.served: list[str] = []
        self.left: str | None = None  # by a rollback, which is done once
        self.retired: set[str] = set()
        self.pins: dict[str, str | None] = {}
        self.ready: dict[str, str | None] = {}
        self.erased: set[str] = set()
        for space in SPACES:
            self.train(space)
            self.add_snapshot(space, START, 6, {*USERS})

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def usable(self, space: str) -> bool:
        """Return whether a space is ready or serving: it has been published and is not retired."""
        return bool(self.vectors.get(space)) and space not in self.retired

    def attempt(self, allowed: bool, act: Any) -> None:
        if allowed:
            act()
            return
        with pytest.raises((UsageError, PromotionRefusedError)):
            act()

    @rule(space=st.sampled_from((*SPACES, "s003-c")))
    def train(self, space: str) -> None:
        registry.add_candidate(
            self.tables, space_id=space, lineage_id="l1", trained_until=date(2024, 4, 1), content_hash="x"
        )
        self.vectors.setdefault(space, {})

    @precondition(lambda self: any(space not in self.retired for space in self.vectors))
    @rule(
        data=st.data(), day=st.integers(0, 3), late=st.integers(0, 40), has=st.sets(st.sampled_from(USERS), min_size=1)
    )
    def publish_snapshot(self, data: st.DataObject, day: int, late: int, has: set[str]) -> None:
        space = data.draw(st.sampled_from(sorted({*self.vectors} - self.retired)))
        self.add_snapshot(space, START + timedelta(days=day), late, has)

    def add_snapshot(self, space: str, as_of: date, late: int, has: set[str]) -> None:
        known = self.vectors[space]
        revision = 1 + sum(s.as_of == as_of for s in known)
        made = snapshot(as_of, revision, datetime.combine(as_of, time()) + timedelta(hours=late), space=space)
        known[made] = {user: [float(as_of.day), float(revision), float(user[1:])] for user in sorted(has - self.erased)}
        publish(self.tables, {made: known[made]})
        registry.mark_ready(self.tables, registry.find_space(self.tables, space))

    @precondition(lambda self: any(len(of) > 1 for of in self.vectors.values()))
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        space = data.draw(st.sampled_from(sorted(space for space, of in self.vectors.items() if len(of) > 1)))
        old = min(self.vectors[space], key=lambda s: (s.as_of, s.revision))
        expired = replace(old, state=EXPIRED)
        record_snapshots(self.tables, [expired])
        self.vectors[space] = {expired if s is old else s: users for s, users in self.vectors[space].items()}

    @rule(space=st.sampled_from(SPACES))
    def promote(self, space: str) -> None:
        unready = [name for name, pin in self.pins.items() if pin is None and self.ready[name] != space]
        free = not self.served or self.served[-1] == space or not unready
        allowed = self.usable(space) and free
        self.attempt(allowed, lambda: registry.promote(self.tables, registry.find_space(self.tables, space)))
        if allowed and self.served[-1:] != [space]:
            self.served.append(space)
            self.left = None

    @rule()
    def roll_back(self) -> None:
        if self.left is not None and self.left not in self.retired:
            registry.rollback(self.tables)
            return
        earlier = [space for space in self.served if space != self.served[-1] and space not in self.retired]
        self.attempt(bool(earlier), lambda: registry.rollback(self.tables))
        if earlier:
            self.left = self.served[-1]
            self.served.append(earlier[-1])

    @rule(space=st.sampled_from(SPACES))
    def retire(self, space: str) -> None:
        allowed = space in self.vectors and self.served[-1:] != [space] and space not in self.pins.values()
        self.attempt(allowed, lambda: registry.retire(self.tables, registry.find_space(self.tables, space)))
        if allowed:
            self.retired.add(space)

    @rule(name=st.sampled_from(CONSUMERS), space=st.sampled_from((None, *SPACES)))
    def register_and_pin(self, name: str, space: str | None) -> None:
        consumers.register_consumer(self.tables, name, owner="team")
        self.pins.setdefault(name, None)
        self.ready.setdefault(name, None)
        allowed = space is None or self.usable(space)
        self.attempt(allowed, lambda: consumers.pin_consumer(self.tables, name, space or "serving"))
        if allowed:
            self.pins[name] = space

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), space=st.sampled_from(SPACES))
    def declare(self, data: st.DataObject, space: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.pins)))
        allowed = self.usable(space)
        self.attempt(allowed, lambda: consumers.declare_ready(self.tables, name, space))
        waiting = (
            self.ready[name] is not None and self.usable(self.ready[name]) and self.served[-1:] != [self.ready[name]]
        )
        if allowed and not (self.served[-1:] == [space] and waiting):
            self.ready[name] = space

    @precondition(lambda self: any(self.vectors.values()) and not self.erased)
    @rule(user=st.sampled_from(USERS), now=st.booleans())
    def erase(self, user: str, now: bool) -> None:
        Erasure(self.tables, self.config, [user]).run(now=now)
        self.erased.add(user)
        for of in self.vectors.values():
            for users in of.values():
                users.pop(user, None)

    @rule(space=st.sampled_from(("serving", *SPACES)), hours=st.lists(HOURS, min_size=2, max_size=4))
    def join(self, space: str, hours: list[int]) -> None:
        times = [datetime.combine(START, time()) + timedelta(hours=hour) for hour in hours]
        rows = [(user, at) for user in [*USERS, "stranger"] for at in times]
        labels = self.spark.createDataFrame(rows, "user_id STRING, label_at TIMESTAMP")
        of = (self.served[-1] if self.served else "none") if space == "serving" else space
        found: list[Any] = []
        has_any = self.usable(of) and any(s.state != EXPIRED for s in self.vectors[of])
        self.attempt(has_any, lambda: found.extend(join_embeddings(labels, tables=self.tables, space=space).collect()))
        if has_any:
            oracle = Oracle(self.vectors[of])
            told = sorted((r.user_id, r.label_at, r.embedding_status, r.snapshot_id, r.embedding) for r in found)
            assert told == sorted((user, at, *oracle(user, at)) for user, at in rows)

    @invariant()
    def the_ledgers_are_as_the_oracle_has_them(self) -> None:
        found = registry.read_registry(self.tables)
        states = {space: "ready" if of else "candidate" for space, of in self.vectors.items()}
        states |= dict.fromkeys(self.served[-1:], "serving") | dict.fromkeys(self.retired, "retired")
        assert {space.space_id: space.state for space in found.spaces} == states
        assert {each.name: (each.pinned_space_id, each.ready_for) for each in found.consumers} == {
            name: (pin, self.ready[name]) for name, pin in self.pins.items()
        }
        for space, of in self.vectors.items():
            listed = {s.snapshot_id for s in list_snapshots(self.tables, space)}
            assert listed == {s.snapshot_id for s in of if s.state != EXPIRED}

    @invariant()
    def no_row_of_an_erased_user_is_left(self) -> None:
        if self.erased:
            users = {row["user_id"] for row in self.tables.ledger(USER_EMBEDDINGS, ("user_id",))}
            assert users == {user for of in self.vectors.values() for has in of.values() for user in has}


@pytest.mark.parametrize("num_walks", [5, pytest.param(60, marks=pytest.mark.full)])
def test_any_order_of_commands_leaves_what_the_oracle_has(spark: SparkSession, num_walks: int) -> None:
    Lifecycle.spark = spark
    steps = settings(
        max_examples=num_walks * TIMES, stateful_step_count=15, deadline=None, derandomize=TIMES == 1,
        phases=[Phase.generate], print_blob=True,
    )  # fmt: skip
    run_state_machine_as_test(Lifecycle, settings=steps)

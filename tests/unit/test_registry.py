"""The registry of spaces and consumers: its transitions against a plain oracle, and changes that come at once."""

import multiprocessing
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pyspark.sql import SparkSession

from userrep.errors import PromotionRefusedError, UsageError, UserrepError
from userrep.schemas import REGISTRY
from userrep.spaces import consumers, transitions
from userrep.spaces.registry import add_candidate, change_registry, find_space, mark_ready, promote, read_registry
from userrep.spaces.registry_value import Consumer, Registry, Space
from userrep.tables import Tables

pytestmark = pytest.mark.default

NOW = datetime(2024, 5, 1, 12)
A, B, C = "s001-a", "s002-b", "s003-c"
NAMES = ("ads", "search", "mail")


def space(space_id: str, state: str = "ready", last_turn: int = 0, lineage_id: str = "l1") -> Space:
    return Space(space_id, state, lineage_id, date(2024, 5, 1), f"hash of {space_id}", NOW, NOW, last_turn)


def consumer(name: str, *, pin: str | None = None, ready_for: str | None = None) -> Consumer:
    return Consumer(name, "team", NOW, NOW, pinned_space_id=pin, ready_for=ready_for)


def two_spaces(*known: Consumer) -> Registry:
    """One space that serves, and one that is ready and has not served."""
    return Registry((space(A, "serving", 1), space(B)), known)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables below a path: their registry needs no session."""
    return Tables(None, root=str(tmp_path))


def with_spaces(tables: Tables, *ids: str) -> None:
    """Register ready spaces; the first one serves."""
    for space_id in ids:
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, ids[0]))


class Walk(RuleBasedStateMachine):
    """Any order of changes, against an oracle that keeps states, the order of serving, pins and declarations."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.states: dict[str, str] = {}
        self.served: list[str] = []  # every turn, in order, but for spaces that a rollback has left
        self.left: str | None = None  # by the last rollback
        self.promoted: set[str] = set()
        self.pins: dict[str, str | None] = {}
        self.ready: dict[str, str | None] = {}

    def change(self, allowed: bool, transition: Callable[..., Registry], *args: str, **more: Any) -> None:
        """Do what is allowed; what is not raises and leaves the registry alone."""
        if allowed:
            self.registry = transition(self.registry, *args, **more)
            return
        with pytest.raises((UsageError, PromotionRefusedError)):
            transition(self.registry, *args, **more)

    def serving(self) -> str | None:
        return self.served[-1] if self.served else None

    def usable(self, space_id: str) -> bool:
        return self.states.get(space_id) in ("ready", "serving")

    def let_serve(self, space_id: str) -> None:
        if self.served:
            self.states[self.served[-1]] = "ready"
        self.served.append(space_id)
        self.promoted.add(space_id)
        self.states[space_id] = "serving"

    @rule(space_id=st.sampled_from((A, B, C)))
    def train(self, space_id: str) -> None:
        self.registry = transitions.add_candidate(self.registry, space(space_id, "candidate"))
        self.states.setdefault(space_id, "candidate")

    @rule(space_id=st.sampled_from((A, B, C)))
    def publish(self, space_id: str) -> None:
        self.change(space_id in self.states, transitions.mark_ready, space_id, now=NOW)
        if self.states.get(space_id) == "candidate":
            self.states[space_id] = "ready"

    @rule(space_id=st.sampled_from((A, B, C)))
    def promote(self, space_id: str) -> None:
        followers = [name for name, pin in self.pins.items() if pin is None]
        unready = [name for name in followers if self.ready[name] != space_id]
        free = self.serving() in (None, space_id) or not unready
        allowed = self.usable(space_id) and free
        if self.usable(space_id):
            planned = transitions.planned_promotion(self.registry, space_id)
            assert [c.name for c in planned.blocks] == ([] if free else sorted(unready))
            assert (planned.serving, len(planned.pinned)) == (self.serving(), len(self.pins) - len(followers))
        self.change(allowed, transitions.promote, space_id, now=NOW)
        if allowed and self.serving() != space_id:
            self.let_serve(space_id)
            self.left = None

    @rule()
    def roll_back(self) -> None:
        if self.left and self.states[self.left] == "ready":  # done before
            assert transitions.rollback(self.registry, now=NOW) == self.registry
            return
        earlier = [s for s in self.served if s != self.serving() and self.states[s] != "retired"]
        self.change(bool(earlier), transitions.rollback, now=NOW)
        if earlier:
            self.left = self.serving()
            self.let_serve(earlier[-1])
            self.served = [s for s in self.served if s != self.left]

    @rule(space_id=st.sampled_from((A, B, C)))
    def retire(self, space_id: str) -> None:
        allowed = self.states.get(space_id) not in (None, "serving") and space_id not in self.pins.values()
        self.change(allowed, transitions.retire, space_id, now=NOW)
        if allowed:
            self.states[space_id] = "retired"

    @rule(name=st.sampled_from(NAMES), pin=st.sampled_from((None, "serving", A, B)))
    def register(self, name: str, pin: str | None) -> None:
        wanted = None if pin == "serving" else pin
        allowed = wanted is None or self.usable(wanted)
        allowed = allowed and (pin is None or self.pins.get(name, wanted) == wanted)
        self.change(allowed, transitions.register, name, owner="team", pin=pin, now=NOW)
        if allowed:
            self.pins.setdefault(name, wanted)
            self.ready.setdefault(name, None)

    @rule(name=st.sampled_from(NAMES), space_id=st.sampled_from((A, B, C)))
    def declare(self, name: str, space_id: str) -> None:
        allowed = name in self.pins and self.usable(space_id)
        self.change(allowed, transitions.declare_ready, name, space_id, now=NOW)
        if allowed and not (self.serving() == space_id and self.states.get(self.ready[name] or "") == "ready"):
            self.ready[name] = space_id

    @rule(name=st.sampled_from(NAMES), space_id=st.sampled_from((A, B, C, "serving")))
    def pin(self, name: str, space_id: str) -> None:
        allowed = name in self.pins and (space_id == "serving" or self.usable(space_id))
        self.change(allowed, transitions.pin, name, space_id, now=NOW)
        if allowed:
            self.pins[name] = None if space_id == "serving" else space_id

    @precondition(lambda self: self.pins)
    @rule(chance=st.randoms(use_true_random=False))
    def remove(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self.pins))
        self.change(True, transitions.remove, name)
        del self.pins[name], self.ready[name]

    @invariant()
    def the_registry_is_as_the_oracle_has_it(self) -> None:
        assert {s.space_id: s.state for s in self.registry.spaces} == self.states
        assert {c.name: c.pinned_space_id for c in self.registry.consumers} == self.pins
        assert {c.name: c.ready_for for c in self.registry.consumers} == self.ready
        assert sum(s.state == "serving" for s in self.registry.spaces) == (1 if self.served else 0)
        assert "candidate" not in {self.states[s] for s in self.pins.values() if s}

    @invariant()
    def the_spaces_in_use_are_as_the_oracle_has_them(self) -> None:
        earlier = [s for s in self.served if s != self.serving() and self.states[s] != "retired"]
        wanted = {self.serving(), *self.pins.values(), *earlier[-1:]} - {None}
        wanted |= {s for s, state in self.states.items() if state == "ready" and s not in self.promoted}
        wanted |= {self.left} if self.left and self.states[self.left] == "ready" else set()
        used = list(self.registry.spaces_in_use())
        assert set(used) == wanted
        assert used[:1] == [self.serving()] or not self.served


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_spaces_in_use_are_listed_with_the_reason_the_serving_one_first() -> None:
    known = Registry(
        (space(A, last_turn=1), space(B, last_turn=2), space(C, "serving", 3), space("s004-d"),
         space("s005-e", "candidate"), space("s006-f", "retired", 4)),
        (consumer("ads", pin=A), consumer("mail", pin=C), consumer("search", pin=A)),
    )  # fmt: skip
    assert list(known.spaces_in_use().items()) == [
        (C, "serving; pinned by mail"),
        (A, "pinned by ads, search"),
        (B, "served before"),
        ("s004-d", "waits to serve"),
    ]
    assert Registry().spaces_in_use() == {}


def test_a_promotion_names_each_consumer_in_its_way_with_the_cure_and_changes_nothing(tables: Tables) -> None:
    with_spaces(tables, A, B)
    for name in NAMES:
        consumers.register_consumer(tables, name, owner=f"{name}@corp", pin=A if name == "mail" else None)
    before = tables.version(REGISTRY)
    with pytest.raises(PromotionRefusedError, match="2 consumers that follow are not ready for it") as caught:
        promote(tables, find_space(tables, B))
    _, *cures = str(caught.value).splitlines()
    assert cures == [
        f"consumer {name} (owner {name}@corp): `userrep consumers ready {name} {B}` once its model is trained on it, "
        f"or `userrep consumers pin {name} {A}` to let it stay."
        for name in ("ads", "search")
    ]
    assert tables.version(REGISTRY) == before
    consumers.declare_ready(tables, "ads", B)
    consumers.pin_consumer(tables, "search", A)
    promote(tables, find_space(tables, B))
    assert {name: consumers.space_of_consumer(tables, name).space_id for name in NAMES} == {
        "ads": B, "search": A, "mail": A,
    }  # fmt: skip


def test_a_rollback_is_never_blocked_and_a_space_comes_back_without_a_new_declaration() -> None:
    known = transitions.promote(two_spaces(consumer("ads", ready_for=B)), B, now=NOW)
    back = transitions.rollback(known, now=NOW)
    assert back.space(None).space_id == A
    again = transitions.declare_ready(back, "ads", A, now=NOW)  # a training on what serves again
    assert again.consumer("ads").ready_for == B
    assert transitions.promote(again, B, now=NOW).space(None).space_id == B


def test_a_rollback_that_is_run_again_changes_nothing_until_the_space_that_it_left_is_retired() -> None:
    known = Registry((space(A, last_turn=1), space(B, last_turn=2), space(C, "serving", 3)))
    back = transitions.rollback(known, now=NOW)
    assert back.space(None).space_id == B
    assert transitions.rollback(back, now=NOW) == back
    assert back.spaces_in_use()[C] == "rolled back from"
    further = transitions.rollback(transitions.retire(back, C, now=NOW), now=NOW)
    assert further.space(None).space_id == A
    assert transitions.rollback(transitions.promote(back, C, now=NOW), now=NOW).space(None).space_id == B


def test_where_nothing_serves_nobody_is_in_the_way() -> None:
    known = Registry((space(A),), (consumer("ads"), consumer("mail", pin=A)))
    assert [c.name for c in transitions.planned_promotion(known, A).moves] == ["ads"]
    assert transitions.promote(known, A, now=NOW).space_of(consumer("ads")).space_id == A


def test_a_space_that_a_consumer_is_pinned_to_is_not_retired() -> None:
    known = two_spaces(consumer("ads", pin=B), consumer("mail", pin=B), consumer("search"))
    with pytest.raises(UsageError, match=f"space {B} is not retired: consumer ads .* is pinned to it") as caught:
        transitions.retire(known, B, now=NOW)
    assert len(caught.value.faults) == 2
    gone = transitions.retire(transitions.remove(transitions.pin(known, "ads", A, now=NOW), "mail"), B, now=NOW)
    assert gone.space(B).state == "retired"
    assert transitions.retire(gone, B, now=NOW) is gone
    with pytest.raises(UsageError, match=f"space {B} is retired; only a ready space can serve"):
        transitions.promote(gone, B, now=NOW)
    with pytest.raises(UsageError, match="s001-a is serving; promote another one first"):
        transitions.retire(gone, A, now=NOW)


@pytest.mark.parametrize(
    ("transition", "arguments", "said"),
    [
        (transitions.declare_ready, ("mail", A), "consumer mail: not registered; consumers there are: ads"),
        (transitions.declare_ready, ("ads", "s9"), "space s9: not in the registry; spaces there are: s001-a, s002-b"),
        (transitions.declare_ready, ("ads", C), f"space {C} is candidate: it has no snapshot to use yet"),
        (transitions.declare_ready, ("ads", "s004-d"), "space s004-d is retired; spaces that can be used: s001-a, s0"),
        (transitions.pin, ("ads", C), f"space {C} is candidate: it has no snapshot to use yet"),
        (transitions.pin, ("ads", "s004-d"), "space s004-d is retired; spaces that can be used: s001-a, s002-b"),
        (transitions.pin, ("../x", A), "consumer '../x' is not a valid name"),
        (transitions.promote, (C,), "is candidate; only a ready space can serve. A candidate becomes ready when"),
        (transitions.promote, ("s004-d",), "is retired; only a ready space can serve. `userrep spaces list` shows"),
        (transitions.rollback, (), "rollback: no other space has served before"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_the_cure(
    transition: Callable[..., Registry], arguments: tuple[str, ...], said: str
) -> None:
    known = two_spaces(consumer("ads"))
    known = replace(known, spaces=(*known.spaces, space(C, "candidate"), space("s004-d", "retired")))
    with pytest.raises(UsageError, match=said):
        transition(known, *arguments, now=NOW)


@pytest.mark.parametrize(
    ("name", "owner", "pin", "said"),
    [
        ("ads", "them", None, "consumer ads belongs to team; choose another name, or ask them to remove it"),
        ("ads", "team", B, "consumer ads is registered already; `userrep consumers pin ads s002-b` changes its space"),
        ("mail", " ", None, "name a team or a person, in one line of at most 100 characters"),
        ("mail", "a\nb", None, "name a team or a person, in one line"),
        ("mail", "a" * 101, None, "name a team or a person, in one line"),
        ("mail", "team", "s004-d", "space s004-d: not in the registry"),
        ("Mail", "team", None, "consumer 'Mail' is not a valid name"),
    ],
)
def test_a_registration_that_makes_no_sense_is_refused_with_the_cure(
    name: str, owner: str, pin: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        transitions.register(two_spaces(consumer("ads")), name, owner=owner, pin=pin, now=NOW)


def test_without_a_space_that_serves_or_a_consumer_of_a_name_the_cure_is_named() -> None:
    with pytest.raises(UsageError, match=r"no space is serving\. `userrep pipeline` trains one"):
        Registry().space("serving")
    with pytest.raises(UsageError, match="consumer ads: not registered; consumers there are: none"):
        transitions.remove(Registry(), "ads")


def test_all_that_is_known_of_a_consumer_is_kept(tables: Tables) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "ads", owner="team A, Grüße", pin=B)
    consumers.register_consumer(tables, "ads", owner="team A, Grüße")  # its owner may repeat it
    consumers.declare_ready(tables, "ads", A)
    before = consumers.find_consumer(tables, "ads")
    consumers.record_training_set(tables, "ads", training_set_id="t1", snapshot_ids=["x-r1", "x-r2"])
    found = consumers.find_consumer(tables, "ads")
    assert found.last_seen_at > before.last_seen_at >= before.registered_at
    assert found == replace(
        before, training_set_id="t1", snapshot_ids=("x-r1", "x-r2"), last_seen_at=found.last_seen_at
    )
    assert (found.owner, found.pinned_space_id, found.ready_for, found.follows) == ("team A, Grüße", B, A, False)
    consumers.pin_consumer(tables, "ads", "serving")
    assert consumers.find_consumer(tables, "ads").follows
    consumers.remove_consumer(tables, "ads")
    with pytest.raises(UsageError, match="consumer ads: not registered; consumers there are: none"):
        consumers.find_consumer(tables, "ads")


def test_what_changes_nothing_makes_no_commit(tables: Tables) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "ads", owner="team")
    consumers.declare_ready(tables, "ads", B)
    before = tables.version(REGISTRY)
    consumers.register_consumer(tables, "ads", owner="team")
    consumers.declare_ready(tables, "ads", B)
    consumers.pin_consumer(tables, "ads", "serving")
    mark_ready(tables, find_space(tables, A))
    promote(tables, find_space(tables, A))
    assert tables.version(REGISTRY) == before


def test_a_kill_between_the_look_and_the_commit_leaves_the_registry_as_it_was(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spaces(tables, A, B)
    before, version = read_registry(tables), tables.version(REGISTRY)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("userrep.delta_files.write_deltalake", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(tables, find_space(tables, B))
    assert (read_registry(tables), tables.version(REGISTRY)) == (before, version)
    promote(tables, find_space(tables, B))
    assert find_space(tables, "serving").space_id == B


def overtaken_by(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another change be committed between the next change's look and its commit."""
    real = Tables.exchange

    def exchange(self: Tables, *args: Any, **more: Any) -> bool:
        monkeypatch.setattr(Tables, "exchange", real)
        change()
        return self.exchange(*args, **more)

    monkeypatch.setattr(Tables, "exchange", exchange)


def test_a_promotion_that_another_change_overtakes_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with_spaces(tables, A, B, C)
    overtaken_by(lambda: promote(tables, find_space(tables, C)), monkeypatch)
    with pytest.raises(
        UserrepError, match="another change of the registry came first; look with `userrep spaces list`"
    ):
        promote(tables, find_space(tables, B))
    assert find_space(tables, None).space_id == C


def test_a_consumer_that_comes_in_between_is_heard_before_a_promotion(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "mail", owner="team", pin=A)
    recorded = {"training_set_id": "t1", "snapshot_ids": ["x"]}
    overtaken_by(lambda: consumers.register_consumer(tables, "ads", owner="team"), monkeypatch)
    with pytest.raises(PromotionRefusedError, match="consumer ads"):
        promote(tables, find_space(tables, B))
    consumers.declare_ready(tables, "ads", B)
    overtaken_by(lambda: consumers.record_training_set(tables, "mail", **recorded), monkeypatch)  # type: ignore[arg-type]
    promote(tables, find_space(tables, B))
    assert find_space(tables, None).space_id == B
    assert consumers.find_consumer(tables, "mail").training_set_id == "t1"


def test_a_change_that_never_gets_its_turn_ends(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with_spaces(tables, A)
    monkeypatch.setattr(Tables, "exchange", lambda *_, **__: False)
    with pytest.raises(UserrepError, match="another change of the registry came first"):
        consumers.register_consumer(tables, "ads", owner="team")


def promote_at_once(root: str, space_id: str, together: Any) -> str:
    """Promote a space once every contender has looked at the registry; return who won, or what was said."""
    first = [True]

    def transition(known: Registry) -> Registry:
        if first.pop() if first else False:
            together.wait(timeout=60)
        return transitions.promote(known, space_id, now=NOW)

    try:
        change_registry(Tables(None, root=root), transition, only_if_spaces_are_as_seen=True)
    except UserrepError as error:
        return str(error)
    return "won"


@pytest.mark.parametrize("seed", range(5))
def test_of_threads_that_promote_at_once_exactly_one_wins(tables: Tables, tmp_path: Path, seed: int) -> None:
    chance, ids = random.Random(seed), [f"s{k:03d}" for k in range(5)]
    with_spaces(tables, *ids)
    for _ in range(6):
        serving = find_space(tables, None).space_id
        contenders = chance.sample([space_id for space_id in ids if space_id != serving], chance.randint(2, 4))
        together, said = threading.Barrier(len(contenders)), {}

        def contend(space_id: str, together: threading.Barrier = together, said: dict[str, str] = said) -> None:
            said[space_id] = promote_at_once(str(tmp_path), space_id, together)

        threads = [threading.Thread(target=contend, args=(space_id,)) for space_id in contenders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [space_id for space_id, answer in said.items() if answer == "won"]
        assert all("another change of the registry came first" in said[s] for s in contenders if s != winner)
        assert [s.space_id for s in read_registry(tables).spaces if s.state == "serving"] == [winner]


def _contend(root: str, mine: tuple[str, ...], together: Any, answers: Any) -> None:
    for space_id in mine:
        answers.put((space_id, promote_at_once(root, space_id, together)))
        together.wait(timeout=60)


def test_of_two_processes_that_promote_at_once_exactly_one_wins(tables: Tables, tmp_path: Path) -> None:
    rounds = 15
    left, right = ([f"{side}{k:02d}" for k in range(rounds)] for side in "ab")
    with_spaces(tables, "first", *left, *right)
    start = multiprocessing.get_context("spawn")
    together, answers = start.Barrier(2), start.Queue()
    both = [
        start.Process(target=_contend, args=(str(tmp_path), tuple(mine), together, answers)) for mine in (left, right)
    ]
    for process in both:
        process.start()
    said = dict(answers.get(timeout=120) for _ in range(2 * rounds))
    for process in both:
        process.join()
    for pair in zip(left, right, strict=True):
        assert sorted(said[space_id] == "won" for space_id in pair) == [False, True]
    assert read_registry(tables).space(None).last_turn == rounds + 1


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


@pytest.fixture
def catalog(spark: SparkSession, tmp_path: Path) -> Any:
    """Tables in a schema of the session's catalog, which have no files of their own."""
    spark.sql(f"CREATE DATABASE registries LOCATION '{tmp_path}/registries'")
    yield Tables(spark, schema="`registries`")
    spark.sql("DROP DATABASE registries CASCADE")


def test_tables_of_a_catalog_have_the_same_registry_by_way_of_spark(
    catalog: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not catalog.has_files
    known = two_spaces(consumer("ads", ready_for=B))
    assert change_registry(catalog, lambda _: known) == read_registry(catalog) == known
    version = catalog.version(REGISTRY)
    promote(catalog, known.spaces[1])
    assert catalog.version(REGISTRY) == version + 1
    found = read_registry(catalog)
    assert {s.space_id: (s.state, s.last_turn) for s in found.spaces} == {A: ("ready", 1), B: ("serving", 2)}
    recorded = {"training_set_id": "t1", "snapshot_ids": ["x"]}
    overtaken_by(lambda: consumers.record_training_set(catalog, "ads", **recorded), monkeypatch)  # type: ignore[arg-type]
    consumers.remove_consumer(catalog, "ads")  # looks again, and finds another registry
    assert read_registry(catalog) == replace(found, consumers=())


def test_of_threads_that_commit_by_way_of_spark_at_once_exactly_one_wins(catalog: Tables) -> None:
    catalog.create(REGISTRY)
    since = None
    for turn in range(3):
        together, won = threading.Barrier(2), []

        def commit(name: str, since: str | None = since, together: Any = together, won: list[str] = won) -> None:
            together.wait(timeout=60)
            if catalog.exchange(REGISTRY, [{"kind": "consumer", "name": name}], since=since):
                won.append(name)

        threads = [threading.Thread(target=commit, args=(f"{side}{turn}",)) for side in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (row,) = catalog.ledger(REGISTRY)
        assert [row["name"]] == won
        since = row.change_id

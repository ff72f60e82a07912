"""Changes of the registry as functions: the promotion guard, rollbacks, and any order of changes against an oracle."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from userrep.errors import PromotionRefusedError, UsageError, UserrepError
from userrep.spaces import transitions
from userrep.spaces.registry_state import Consumer, Registry, Space

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)
A, B, C = "s001-a", "s002-b", "s003-c"
LATER = NOW + timedelta(hours=1)
NAMES = ("ads", "search", "mail")


def space(space_id: str, state: str = "ready", last_turn: int = 0, lineage_id: str = "l1") -> Space:
    return Space(space_id, state, lineage_id, date(2024, 5, 1), f"hash of {space_id}", NOW, NOW, last_turn)


def consumer(name: str, *, pin: str | None = None, ready_for: str | None = None) -> Consumer:
    return Consumer(name, "team", NOW, NOW, pinned_space_id=pin, ready_for=ready_for)


def two_spaces(*known: Consumer) -> Registry:
    """One space that serves, and one that is ready and has not served."""
    return Registry((space(A, "serving", 1), space(B)), known, NOW)


def later(known: Registry) -> Registry:
    """Return the same registry, read later."""
    return replace(known, read_at=LATER)


def trained(known: Registry, space_id: str, content_hash: str = "hash") -> Registry:
    more = {"lineage_id": "l1", "trained_until": date(2024, 5, 1), "content_hash": content_hash}
    return transitions.add_candidate(known, space_id=space_id, **more)  # type: ignore[arg-type]


def test_a_follower_that_is_not_ready_blocks_a_promotion_and_is_named() -> None:
    known = two_spaces(consumer("ads", ready_for=B), consumer("mail", ready_for=A), consumer("search"))
    with pytest.raises(PromotionRefusedError) as caught:
        transitions.promote(known, B)
    assert str(caught.value).splitlines() == [
        "space s002-b is not promoted: 2 consumers that follow are not ready for it. Nothing has changed.",
        "consumer mail (owner team): run `userrep consumers ready mail s002-b` once its model is trained on "
        "that space, or `userrep consumers pin mail s001-a` to let it stay.",
        "consumer search (owner team): run `userrep consumers ready search s002-b` once its model is trained on "
        "that space, or `userrep consumers pin search s001-a` to let it stay.",
    ]
    with pytest.raises(PromotionRefusedError, match="is not promoted: a consumer that follows is not ready for it"):
        transitions.promote(transitions.remove(known, "mail"), B)


def test_a_pinned_consumer_never_blocks_a_promotion() -> None:
    pinned = consumer("ads", pin=A), consumer("mail", pin=B, ready_for=A)
    known = two_spaces(*pinned, consumer("search", ready_for=B))
    planned = transitions.planned_promotion(known, B)
    assert (planned.blocks, planned.pinned, [c.name for c in planned.moves]) == ((), pinned, ["search"])
    after = transitions.promote(known, B)
    assert [after.space(c.pinned_space_id).space_id for c in after.consumers] == [A, B, B]
    assert after.consumers == known.consumers


def test_nothing_blocks_a_rollback() -> None:
    spaces = space(A, last_turn=1), space(B, "serving", 2)
    known = Registry(spaces, (consumer("ads", pin=B), consumer("mail"), consumer("search", ready_for=B)))
    back = transitions.rollback(known)
    assert {s.space_id: s.state for s in back.spaces} == {A: "serving", B: "ready"}
    assert back.consumers == known.consumers


def test_a_promotion_numbers_spaces_in_the_order_in_which_they_serve() -> None:
    known = Registry((space(A, last_turn=4), space(B, "serving", 7), space(C)), ())
    after = transitions.promote(later(known), C)
    assert [(s.state, s.last_turn, s.changed_at) for s in after.spaces] == [
        ("ready", 4, NOW), ("ready", 7, LATER), ("serving", 8, LATER),
    ]  # fmt: skip
    back = transitions.rollback(later(after))
    assert [(s.state, s.last_turn) for s in back.spaces] == [("ready", 4), ("serving", 9), ("ready", -9)]


def test_promoting_the_serving_space_moves_and_blocks_no_consumer() -> None:
    known = two_spaces(consumer("ads"))
    planned = transitions.planned_promotion(known, A)
    assert (planned.serving, planned.moves, planned.blocks) == (A, (), ())
    assert transitions.promote(later(known), A) == known


def test_candidates_are_registered_once_and_spaces_ordered_by_their_creation() -> None:
    known = replace(trained(Registry(read_at=LATER), A), read_at=NOW)
    known = trained(known, "s009-i")
    assert [(s.space_id, s.created_at) for s in known.spaces] == [("s009-i", NOW), (A, LATER)]
    assert trained(known, "s009-i") is known


def test_an_id_is_not_given_to_a_second_artifact() -> None:
    known = trained(Registry(), A)
    with pytest.raises(
        UserrepError,
        match=f"space {A}: not registered, because a concurrent training has registered another artifact under this id",
    ):
        trained(known, A, "another")


def test_a_map_is_named_once() -> None:
    known = transitions.add_map(Registry((space(A), space(B))), B, A, "first")
    assert known.space(B).maps == ((A, "first"),)
    assert transitions.add_map(known, B, A, "second") is known


def test_only_a_candidate_becomes_ready() -> None:
    known = Registry((space(A, "candidate"), space(B, "retired"), space(C, "serving", 1)))
    after = transitions.mark_ready(later(known), A)
    assert [(s.state, s.changed_at) for s in after.spaces] == [("ready", LATER), ("retired", NOW), ("serving", NOW)]
    assert transitions.mark_ready(later(known), B) == known
    assert transitions.mark_ready(later(known), C) == known


def test_consumers_are_seen_whenever_they_change_and_only_then() -> None:
    known = transitions.register(two_spaces(consumer("mail")), "ads", owner="team", pin="serving")
    assert known.consumers == (Consumer("ads", "team", NOW, NOW), consumer("mail"))
    for change in (
        lambda registry: transitions.declare_ready(later(registry), "ads", B),
        lambda registry: transitions.pin(later(registry), "ads", A),
        lambda registry: transitions.record_training_set(
            later(registry), "ads", training_set_id="t", snapshot_ids=["x"]
        ),
    ):
        after = change(known)
        ads, mail = after.consumers
        assert (ads.registered_at, ads.last_seen_at, mail) == (NOW, LATER, consumer("mail"))
    ready = transitions.declare_ready(known, "ads", B)
    assert transitions.declare_ready(later(ready), "ads", B) == ready
    assert transitions.pin(later(known), "ads", "serving") == known
    assert transitions.register(later(known), "ads", owner="team", pin=None) == known


def test_a_rollback_is_never_blocked_and_a_space_comes_back_without_a_new_declaration() -> None:
    known = transitions.promote(two_spaces(consumer("ads", ready_for=B)), B)
    back = transitions.rollback(known)
    assert back.space(None).space_id == A
    again = transitions.declare_ready(back, "ads", A)  # a training on what serves again
    assert again.consumer("ads").ready_for == B
    assert transitions.promote(again, B).space(None).space_id == B


def test_a_rollback_that_is_run_again_changes_nothing_until_the_space_that_it_left_is_retired() -> None:
    known = Registry((space(A, last_turn=1), space(B, last_turn=2), space(C, "serving", 3)))
    back = transitions.rollback(known)
    assert back.space(None).space_id == B
    assert transitions.rollback(back) == back
    assert back.spaces_in_use()[C] == "rolled back from"
    further = transitions.rollback(transitions.retire(back, C))
    assert further.space(None).space_id == A
    assert transitions.rollback(transitions.promote(back, C)).space(None).space_id == B


def test_where_nothing_serves_no_consumer_blocks_a_promotion() -> None:
    known = Registry((space(A),), (consumer("ads"), consumer("mail", pin=A)))
    assert [c.name for c in transitions.planned_promotion(known, A).moves] == ["ads"]
    assert transitions.promote(known, A).space(consumer("ads").pinned_space_id).space_id == A


def test_a_space_that_a_consumer_is_pinned_to_is_not_retired() -> None:
    known = two_spaces(consumer("ads", pin=B), consumer("mail", pin=B), consumer("search"))
    with pytest.raises(UsageError, match=f"space {B} is not retired: consumer ads .* is pinned to it") as caught:
        transitions.retire(known, B)
    assert len(caught.value.faults) == 2
    gone = transitions.retire(transitions.remove(transitions.pin(known, "ads", A), "mail"), B)
    assert gone.space(B).state == "retired"
    assert transitions.retire(gone, B) is gone
    with pytest.raises(UsageError, match=f"space {B} is retired; only a ready space can serve"):
        transitions.promote(gone, B)
    with pytest.raises(UsageError, match=r"s001-a is serving\. Promote another space first"):
        transitions.retire(gone, A)


@pytest.mark.parametrize(
    ("transition", "arguments", "said"),
    [
        (transitions.declare_ready, ("mail", A), "consumer mail: not registered. Known consumers: ads"),
        (transitions.declare_ready, ("ads", "s9"), "space s9: not in the registry. Known spaces: s001-a, s002-b"),
        (transitions.declare_ready, ("ads", C), f"space {C} is a candidate without a published snapshot"),
        (transitions.declare_ready, ("ads", "s004-d"), "space s004-d is retired. Spaces that can be used: s001-a, s0"),
        (transitions.pin, ("ads", C), f"space {C} is a candidate without a published snapshot"),
        (transitions.pin, ("ads", "s004-d"), "space s004-d is retired. Spaces that can be used: s001-a, s002-b"),
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
        transition(known, *arguments)


@pytest.mark.parametrize(
    ("name", "owner", "pin", "said"),
    [
        ("ads", "them", None, "consumer ads belongs to team. Choose another name, or ask its owner to remove it"),
        ("ads", "team", B, "consumer ads is already registered. Change its space with `userrep consumers pin ads"),
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
        transitions.register(two_spaces(consumer("ads")), name, owner=owner, pin=pin)


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
        self.registry = trained(self.registry, space_id)
        self.states.setdefault(space_id, "candidate")

    @rule(space_id=st.sampled_from((A, B, C)))
    def publish(self, space_id: str) -> None:
        self.change(space_id in self.states, transitions.mark_ready, space_id)
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
        self.change(allowed, transitions.promote, space_id)
        if allowed and self.serving() != space_id:
            self.let_serve(space_id)
            self.left = None

    @rule()
    def roll_back(self) -> None:
        if self.left and self.states[self.left] == "ready":  # done before
            assert transitions.rollback(self.registry) == self.registry
            return
        earlier = [s for s in self.served if s != self.serving() and self.states[s] != "retired"]
        self.change(bool(earlier), transitions.rollback)
        if earlier:
            self.left = self.serving()
            self.let_serve(earlier[-1])
            self.served = [s for s in self.served if s != self.left]

    @rule(space_id=st.sampled_from((A, B, C)))
    def retire(self, space_id: str) -> None:
        allowed = self.states.get(space_id) not in (None, "serving") and space_id not in self.pins.values()
        self.change(allowed, transitions.retire, space_id)
        if allowed:
            self.states[space_id] = "retired"

    @rule(name=st.sampled_from(NAMES), pin=st.sampled_from((None, "serving", A, B)))
    def register(self, name: str, pin: str | None) -> None:
        wanted = None if pin == "serving" else pin
        allowed = wanted is None or self.usable(wanted)
        allowed = allowed and (pin is None or self.pins.get(name, wanted) == wanted)
        self.change(allowed, transitions.register, name, owner="team", pin=pin)
        if allowed:
            self.pins.setdefault(name, wanted)
            self.ready.setdefault(name, None)

    @rule(name=st.sampled_from(NAMES), space_id=st.sampled_from((A, B, C)))
    def declare(self, name: str, space_id: str) -> None:
        allowed = name in self.pins and self.usable(space_id)
        self.change(allowed, transitions.declare_ready, name, space_id)
        if allowed and not (self.serving() == space_id and self.states.get(self.ready[name] or "") == "ready"):
            self.ready[name] = space_id

    @rule(name=st.sampled_from(NAMES), space_id=st.sampled_from((A, B, C, "serving")))
    def pin(self, name: str, space_id: str) -> None:
        allowed = name in self.pins and (space_id == "serving" or self.usable(space_id))
        self.change(allowed, transitions.pin, name, space_id)
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

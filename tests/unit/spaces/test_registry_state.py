"""What can be asked of the registry: which space serves, which served before, which are in use, who uses which."""

import pytest

from tests.unit.spaces.test_transitions import A, B, C, consumer, space, two_spaces
from userrep.errors import UsageError
from userrep.spaces import transitions
from userrep.spaces.registry_state import Registry

pytestmark = pytest.mark.fast


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


def test_without_a_space_that_serves_or_a_consumer_of_a_name_the_cure_is_named() -> None:
    with pytest.raises(UsageError, match=r"no space is serving\. Run `userrep pipeline --as-of DATE` to train"):
        Registry().space("serving")
    with pytest.raises(UsageError, match=r"consumer ads: not registered\. Known consumers: none"):
        transitions.remove(Registry(), "ads")


def test_the_space_that_served_before_is_ready_and_was_promoted_last() -> None:
    spaces = (
        space(A, last_turn=2), space(B, last_turn=1), space("s003-c", "retired", 3), space("s004-d", "serving", 5),
        space("s005-e"), space("s006-f", last_turn=-5),
    )  # fmt: skip
    before = Registry(spaces).served_before
    assert before is not None
    assert before.space_id == A
    assert two_spaces().served_before is None


def test_a_space_was_rolled_back_from_while_the_one_that_it_left_to_serves() -> None:
    left, serving = space(A, last_turn=-3), space(B, "serving", 3)
    assert Registry((left, serving)).rolled_back_from == left
    assert Registry((left, space(B, "serving", 4))).rolled_back_from is None
    assert Registry((space(A, "retired", -3), serving)).rolled_back_from is None
    assert Registry((space(A, last_turn=3), serving)).rolled_back_from is None
    assert Registry((space(A), space(B))).rolled_back_from is None  # nothing serves, nothing was promoted


def test_a_consumer_uses_the_space_it_is_pinned_to_or_else_the_serving_one() -> None:
    ads, mail, search = consumer("ads"), consumer("mail", pin=B), consumer("search", pin=A)
    known = two_spaces(ads, mail, search)
    assert [known.space(c.pinned_space_id).space_id for c in known.consumers] == [A, B, A]
    assert [c.follows for c in known.consumers] == [True, False, False]
    assert (known.pinned_to(A), known.pinned_to(B), known.pinned_to(C)) == ([search], [mail], [])
    nothing_serves = Registry((space(A), space(B)), known.consumers)
    assert nothing_serves.space(mail.pinned_space_id).space_id == B
    with pytest.raises(UsageError, match="no space is serving"):
        nothing_serves.space(ads.pinned_space_id)


def test_spaces_and_consumers_are_found_by_name_or_those_that_exist_are_listed() -> None:
    known = two_spaces(consumer("ads"), consumer("mail"))
    assert [known.space(name).space_id for name in (None, "serving", A, B)] == [A, A, A, B]
    assert known.consumer("mail") == consumer("mail")
    with pytest.raises(UsageError, match=r"space s009: not in the registry\. Known spaces: s001-a, s002-b"):
        known.space("s009")
    with pytest.raises(UsageError, match="Known spaces: none"):
        Registry().space("s009")
    with pytest.raises(UsageError, match=r"space '\.\./s001-a' is not a valid name"):
        known.space("../s001-a")
    with pytest.raises(UsageError, match=r"consumer web: not registered\. Known consumers: ads, mail"):
        known.consumer("web")

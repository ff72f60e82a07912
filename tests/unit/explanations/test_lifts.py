"""Lifts: compared with Katz's interval for two shares, computed by hand, and with what chance gives."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import norm

from userrep.explanations.lifts import Lift, lifts_by_segment, name_of
from userrep.explanations.user_labels import ACTIVITY, ATTRIBUTE, ITEMS, UserLabels

pytestmark = pytest.mark.fast


def labels_of(share_NL: np.ndarray, kinds: list[str], has_items: np.ndarray | None = None) -> UserLabels:
    has_items_N = np.ones(len(share_NL), bool) if has_items is None else has_items
    return UserLabels([f"label{k}" for k in range(len(kinds))], kinds, csr_array(share_NL), has_items_N)


def test_the_bound_of_an_attribute_is_the_interval_of_katz_for_the_ratio_of_two_shares() -> None:
    a, n1, c, n2 = 40, 100, 60, 900  # 40 of 100 users of the segment have it, and 60 of 900 others
    share_NL = np.zeros((n1 + n2, 1))
    share_NL[:a] = share_NL[n1 : n1 + c] = 1
    segment_N = np.repeat([0, 1], [n1, n2])
    (found,), others = lifts_by_segment(labels_of(share_NL, [ATTRIBUTE]), segment_N, 2)
    z = norm.isf(0.05 / 2)  # one label, two segments
    ratio = (a / n1) / (c / n2)
    least = ratio * math.exp(-z * math.sqrt(1 / a - 1 / n1 + 1 / c - 1 / n2))
    assert (found.share, found.lift, found.at_least) == pytest.approx((0.4, ratio, least))
    assert others == []


def test_shares_of_items_are_compared_among_users_with_items() -> None:
    random = np.random.default_rng(0)
    segment_N = np.repeat([0, 1], [400, 600])
    share_NL = np.where(segment_N == 0, 0.3, 0.1)[:, None] * random.uniform(0.5, 1.5, size=(1000, 1))
    has_items = random.uniform(size=1000) < 0.5
    share_NL[~has_items] = 0
    (found,), _ = lifts_by_segment(labels_of(share_NL, [ITEMS], has_items), segment_N, 2)
    here, there = (share_NL[has_items & (segment_N == s), 0] for s in (0, 1))
    assert found.share == pytest.approx(here.mean())
    assert found.lift == pytest.approx(here.mean() / there.mean())
    error = math.sqrt(here.var() / len(here) / here.mean() ** 2 + there.var() / len(there) / there.mean() ** 2)
    assert found.at_least == pytest.approx(found.lift * math.exp(-norm.isf(0.025) * error))


def test_chance_lists_no_label() -> None:
    random = np.random.default_rng(1)
    for seed in range(5):
        share_NL = (np.random.default_rng(seed).uniform(size=(2_000, 300)) < 0.1).astype(float)
        lifts = lifts_by_segment(labels_of(share_NL, [ATTRIBUTE] * 300), random.integers(0, 5, 2_000), 5)
        assert sum(map(len, lifts)) <= 1


def test_a_label_of_few_users_is_not_listed_and_one_that_no_other_user_has_is() -> None:
    segment_N = np.repeat([0, 1], [100, 5_000])
    share_NL = np.zeros((5_100, 2))
    share_NL[:9, 0] = share_NL[:60, 1] = 1
    (found,), _ = lifts_by_segment(labels_of(share_NL, [ATTRIBUTE] * 2), segment_N, 2)
    assert found.label == "label1"
    assert found.lift == pytest.approx(0.6 / (0.5 / 5_000))


def test_a_single_segment_has_no_labels() -> None:
    assert lifts_by_segment(labels_of(np.ones((50, 1)), [ATTRIBUTE]), np.zeros(50, np.int64), 1) == [[]]


def test_a_name_has_labels_of_each_kind_without_a_word_twice() -> None:
    def lift(label: str, kind: str) -> Lift:
        return Lift(label, kind, 0.5, 3.0, 2.0)

    lifts = [lift("christmas tree", ITEMS), lift("christmas", ITEMS), lift("felt", ITEMS), lift("bag", ITEMS),
             lift("country Germany", ATTRIBUTE), lift("1-2 events in 180 days", ACTIVITY)]  # fmt: skip
    assert name_of(lifts) == "christmas tree, felt; country Germany; 1-2 events in 180 days"
    weak = Lift("country United Kingdom", ATTRIBUTE, 0.97, 1.1, 1.05)
    assert name_of([weak]) == name_of([])
    assert name_of(lifts[-1:]) == "1-2 events in 180 days"
    assert name_of([]) == "no label stands out"

"""What a generated log plants: tastes, items and visits, all of which follow from the specification."""

from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from userrep.synthetic.catalog import Catalog
from userrep.synthetic.log_spec import REGIMES, LogSpec
from userrep.synthetic.planted import Population

pytestmark = pytest.mark.fast

SPEC = LogSpec(num_users=200, num_items=60, num_days=40)
DAY_MS = 24 * 3_600_000


@cache
def population() -> Population:
    return Population(SPEC, np.arange(200))


@cache
def catalog() -> Catalog:
    return Catalog(SPEC)


# Users


def test_a_user_is_the_same_in_every_block_that_contains_them() -> None:
    part = Population(SPEC, np.arange(50, 60))
    assert np.array_equal(part.registered_ms, population().registered_ms[50:60])
    assert np.allclose(part.tastes, population().tastes[50:60], rtol=1e-12)
    assert np.allclose(part.churn_rate(), population().churn_rate()[50:60], rtol=1e-12)


def test_tastes_drift_but_keep_their_owner() -> None:
    spec = LogSpec(num_users=200, num_days=120)
    tastes = Population(spec, np.arange(200)).tastes
    assert np.allclose(tastes.sum(axis=2), 1)

    def likeness(day: int) -> float:
        return float(np.corrcoef(tastes[:, 0].ravel(), tastes[:, day].ravel())[0, 1])

    assert 1 > likeness(10) > likeness(60) > likeness(119) > 0.3


def test_users_visit_on_the_day_they_register_and_never_before() -> None:
    rows, days, slots = population().sessions()
    registered = population().registered_day
    first = {row: days[rows == row].min() for row in np.unique(rows)}
    newcomers = [row for row in np.flatnonzero(registered >= 0) if not population().is_heavy[row]]
    assert len(newcomers) > 30
    assert all(first[row] == registered[row] for row in newcomers)
    assert set(slots) == {0, 1}
    assert len(set(zip(rows, days, slots, strict=True))) == len(rows)


def test_events_lie_within_their_day_after_the_registration_and_follow_each_other_in_a_session() -> None:
    rows, days, slots = population().sessions()
    events = population().events(catalog(), rows, days, slots)
    assert events["clock_ms"].min() >= 0
    assert events["clock_ms"].max() < DAY_MS
    moments = events["day"] * DAY_MS + events["clock_ms"]
    assert (moments > population().registered_ms[events["user"]]).all()
    assert set(zip(events["user"], events["day"], strict=True)) == set(zip(rows, days, strict=True))
    ids = set(zip(events["user"], events["day"], events["serial"], strict=True))
    assert len(ids) == len(moments)
    assert catalog().is_sold(events["item"], events["day"]).all()
    assert (events["weight"] > 0).all()


def test_the_heavy_user_never_churns_and_has_no_ordinary_sessions() -> None:
    rows, _, _ = population().sessions()
    assert population().is_heavy.tolist() == [True] + [False] * 199
    assert 0 not in rows
    churn = population().churn_rate()
    assert churn[0] == 0
    assert ((churn[1:] > 0) & (churn[1:] < 1)).all()
    assert (population().churn_rate(14)[1:] < churn[1:]).all()  # more days to come back in
    assert not Population(LogSpec(heavy_user_share=0), np.arange(3)).is_heavy.any()


# Kinds of logs


@cache
def bought(regime: str) -> tuple[Population, dict[str, Any]]:
    spec = LogSpec(num_users=200, num_days=120, heavy_user_share=0, **REGIMES[regime])
    users = Population(spec, np.arange(200))
    return users, users.events(Catalog(spec), *users.sessions())


def repeated(regime: str) -> float:
    """Return the share of events whose item its user had on an earlier day, in plain Python."""
    known: set[tuple[int, int]] = set()
    _, events = bought(regime)
    repeats = 0
    for _, rows in groupby(np.argsort(events["day"], kind="stable"), key=lambda row: events["day"][row]):
        pairs = [(int(events["user"][row]), int(events["item"][row])) for row in rows]
        repeats += sum(pair in known for pair in pairs)
        known.update(pairs)
    return repeats / len(events["day"])


def test_users_of_a_repeating_log_take_the_same_few_items_again() -> None:
    assert repeated("repeat") > 1.3 * repeated("mixed") > 1.8 * repeated("explore")


def test_most_staples_stay_the_same_over_months() -> None:
    _, events = bought("repeat")
    shares = []
    for user in range(200):
        ours = events["user"] == user
        early, late = ours & (events["day"] < 60), ours & (events["day"] >= 60)
        if early.sum() >= 30 and late.sum() >= 30:
            first = np.bincount(events["item"][early]).argmax()
            shares.append(np.mean(events["item"][late] == first))
    assert len(shares) > 20
    assert np.mean(np.array(shares) > 0.1) > 0.6


def test_tastes_of_an_exploring_log_move_on_and_its_items_are_less_alike_in_popularity() -> None:
    def likeness(regime: str) -> float:
        tastes = bought(regime)[0].tastes
        return float(np.corrcoef(tastes[:, 0].ravel(), tastes[:, 60].ravel())[0, 1])

    def share_of_top_items(regime: str) -> float:
        counts = np.sort(np.bincount(bought(regime)[1]["item"], minlength=600))
        return float(counts[-60:].sum() / counts.sum())

    assert likeness("explore") < likeness("mixed") - 0.2
    assert share_of_top_items("explore") < 0.6 * share_of_top_items("mixed")


def test_half_of_the_users_of_a_churning_log_leave_for_good() -> None:
    users, events = bought("churn")
    leaving = users._leaving_day
    leaves = np.isfinite(leaving)
    assert leaves.mean() == pytest.approx(0.5, abs=0.12)
    assert (events["day"] <= np.ceil(leaving[events["user"]])).all()
    assert (users.churn_rate()[leaving < users.spec.num_days] == 1).all()
    days = np.unique(np.stack([events["user"], events["day"]]), axis=1)
    before = leaving[days[0]] - days[1]
    assert np.mean((before > 0) & (before < 15)) < 0.7 * np.mean((before > 30) & (before < 45))  # they fade

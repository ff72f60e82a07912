"""The items of a generated log: popularity, and the days on which they are sold."""

from functools import cache

import numpy as np
import pytest

from userrep.synthetic.catalog import Catalog
from userrep.synthetic.draws import keys_of
from userrep.synthetic.log_spec import LogSpec

pytestmark = pytest.mark.fast

SPEC = LogSpec(num_users=200, num_items=60, num_days=40)


@cache
def catalog() -> Catalog:
    return Catalog(SPEC)


def test_items_are_drawn_in_proportion_to_popularity_among_those_sold() -> None:
    catalog = Catalog(LogSpec(num_items=24))
    draws = 200_000
    keys, day = keys_of(1, np.arange(draws)), np.full(draws, 75)
    items = catalog.drawn_items(keys, np.full(draws, 3), day)
    ours = np.flatnonzero(catalog.genre == 3)
    ours = np.array([catalog.evergreen[3], *np.setdiff1d(ours, catalog.evergreen)])
    sold = ours[catalog.is_sold(ours, day[: len(ours)])]
    counts = np.bincount(items, minlength=24)
    assert counts[sold].sum() == draws
    assert counts[sold].min() > 0
    assert counts.argmax() == catalog.evergreen[3]


def test_an_item_is_sold_from_its_first_day_until_before_its_last() -> None:
    items = np.flatnonzero(catalog().died < SPEC.num_days)
    assert len(items) > 5
    born, died = catalog().born[items], catalog().died[items]
    assert catalog().is_sold(items, born).all()
    assert catalog().is_sold(items, died - 1).all()
    assert not catalog().is_sold(items, born - 1).any()
    assert not catalog().is_sold(items, died).any()


def test_each_genre_has_an_item_that_is_always_sold() -> None:
    assert catalog().genre[catalog().evergreen].tolist() == list(range(SPEC.num_genres))
    for day in (0, SPEC.num_days, 10_000):
        assert catalog().is_sold(catalog().evergreen, np.full(SPEC.num_genres, day)).all()

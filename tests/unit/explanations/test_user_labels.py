"""Labels of users: shares of their items by hand, attributes and ranges of activity."""

from collections import Counter

import numpy as np
import pytest

from tests.support.explained_world import AS_OF, ITEMS, TASTES, TEXTS, World, explained_world
from userrep.explanations.item_labels import read_item_labels
from userrep.explanations.sampled_users import SampledUsers, sample_users
from userrep.explanations.user_labels import ACTIVITY, ATTRIBUTE, UserLabels, label_users
from userrep.features.spec import FeatureSpec
from userrep.store.schemas import USER_ITEM_DAYS

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def users(world: World) -> SampledUsers:
    return sample_users(world.tables, world.config, world.space, world.snapshot)


@pytest.fixture(scope="module")
def labels(world: World, users: SampledUsers) -> UserLabels:
    items = read_item_labels(world.tables, world.config.items)
    return label_users(world.tables, FeatureSpec.of(world.config), users, AS_OF, items)


def test_the_share_of_a_label_is_that_of_the_users_items_of_the_window(
    world: World, users: SampledUsers, labels: UserLabels
) -> None:
    text_of = dict(zip(ITEMS, TEXTS, strict=True))
    items: dict[str, list[str]] = {}
    for tile in world.tables.ledger(USER_ITEM_DAYS):
        items.setdefault(tile.user_id, []).append(text_of[tile.item_id])
    share_NL = labels.share_NL.toarray()
    for label in ("large", *TASTES, "large garden"):
        expected = [
            np.mean([f" {label} " in f" {text.lower()} " for text in items[user_id]])
            for user_id in users.user_ids.to_pylist()
        ]
        assert share_NL[:, labels.labels.index(label)] == pytest.approx(expected)
    assert labels.has_items_N.all()


def test_attributes_and_ranges_of_activity_are_yes_or_no(users: SampledUsers, labels: UserLabels) -> None:
    share_NL = labels.share_NL.toarray()
    countries = users.features.column("attribute_country").to_pylist()
    for country, num in Counter(countries).items():
        index = labels.labels.index(f"country {country}")
        assert (labels.kinds[index], share_NL[:, index].sum()) == (ATTRIBUTE, num)
    for first, last, name in ((3, 9, "3-9"), (10, 29, "10-29"), (100, 299, "100-299")):
        index = labels.labels.index(f"{name} events in 7 days")
        number_N = users.features.column("num_events_7d").to_numpy()
        assert labels.kinds[index] == ACTIVITY
        assert share_NL[:, index].tolist() == ((number_N >= first) & (number_N <= last)).astype(float).tolist()
    assert share_NL[:, labels.labels.index("last event 0-6 days ago")].all()


def test_without_texts_users_have_no_labels_of_items(world: World, users: SampledUsers) -> None:
    found = label_users(world.tables, FeatureSpec.of(world.config), users, AS_OF, None)
    assert set(found.kinds) == {ATTRIBUTE, ACTIVITY}
    assert not found.has_items_N.any()

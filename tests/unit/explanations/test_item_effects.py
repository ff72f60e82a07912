"""Effects of items on a score: by hand from the scaler and the weights, and labels that move the score."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t as student

from tests.support.explained_world import AS_OF, ITEMS, World, explained_world
from userrep.explanations.item_effects import item_effects, label_effects, read_item_matrix
from userrep.explanations.item_labels import labels_of
from userrep.features.layout import InputLayout

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("effects"))


def test_the_effect_of_an_item_is_that_of_a_user_with_only_this_item(world: World) -> None:
    items = read_item_matrix(world.tables, world.config, world.layout, AS_OF)
    assert sorted(items.item_ids.to_pylist()) == sorted(ITEMS)
    weight_F = np.random.default_rng(1).normal(size=world.layout.width)
    effect_I = item_effects(world.layout, world.scaler, weight_F, items)
    part = world.part("behaviour_7d")
    for item_id, effect in zip(items.item_ids.to_pylist(), effect_I, strict=True):
        vector = world.item_vectors[ITEMS.index(item_id)]
        scaled = np.clip((vector - world.scaler.center_F[part]) / world.scaler.scale_F[part], -8, 8)
        direction = scaled * math.sqrt(len(vector)) / np.linalg.norm(scaled)  # as the scaler does with pooled vectors
        assert effect == pytest.approx(float(direction @ weight_F[part]), rel=1e-4, abs=1e-4)


def test_the_effect_of_an_item_does_not_depend_on_its_length_where_means_are_unit_vectors(world: World) -> None:
    layout = InputLayout.of(world.layout.spec, world.layout.vocabulary, "behaviour")
    items = read_item_matrix(world.tables, world.config, world.layout, AS_OF)
    weight_F = np.random.default_rng(1).normal(size=layout.width)
    effect_I = item_effects(layout, world.scaler, weight_F, items)
    part = world.part("behaviour_7d")
    for item_id, effect in zip(items.item_ids.to_pylist(), effect_I, strict=True):
        vector = world.item_vectors[ITEMS.index(item_id)]
        scaled = (vector / np.linalg.norm(vector) - world.scaler.center_F[part]) / world.scaler.scale_F[part]
        assert effect == pytest.approx(float(scaled @ weight_F[part]), rel=1e-4, abs=1e-4)


def test_labels_are_listed_by_the_bound_of_their_mean_effect() -> None:
    random = np.random.default_rng(2)
    words = ["tea"] * 40 + ["beer"] * 40 + ["mug"] * 120
    effect_I = np.repeat([1.0, -0.5, 0.0], [40, 40, 120]) + random.normal(size=200)
    ids = pa.array([f"i{k:03d}" for k in range(200)])
    labels = labels_of(ids, pa.array([f"{word} set" if k % 2 else word for k, word in enumerate(words)]))
    tea, *rest = label_effects(labels, ids, effect_I)
    assert tea.label == "tea"
    centered = effect_I - effect_I.mean()
    factor = student.isf(0.025 / len(labels.labels), 39)
    bound = centered[:40].mean() - factor * centered[:40].std() / math.sqrt(39)
    assert (tea.num_items, tea.effect, tea.at_least) == (40, pytest.approx(centered[:40].mean()), pytest.approx(bound))
    assert [each.label for each in rest if each.effect > 0] == []
    assert rest[0].label == "beer"


def test_items_without_a_text_and_labels_of_noise_are_not_listed() -> None:
    ids = pa.array([f"i{k:03d}" for k in range(300)])
    words = np.random.default_rng(3).choice(["red", "blue", "green", "white", "black"], size=300)
    labels = labels_of(ids, pa.array(words))
    assert label_effects(labels, ids, np.random.default_rng(4).normal(size=300)) == []
    assert label_effects(labels, pa.array(["other"]), np.ones(1)) == []

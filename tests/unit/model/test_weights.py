"""The names and shapes of a model's weights, told without making any."""

import pytest

from tests.unit.inference.test_model import LINEAR, MODEL, NO_TARGETS, PAPER, layout_of
from userrep import config
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.weights import propensities_of, weight_shapes

pytestmark = pytest.mark.fast

TARGETS = TargetLayout.of(layout_of().spec, [7])


@pytest.mark.parametrize("model", [LINEAR, MODEL, PAPER, LINEAR.model_copy(update={"next_items_weight": 0.0})])
@pytest.mark.parametrize("targets", [NO_TARGETS, TARGETS])
def test_shapes_are_those_of_the_weights(model: config.Model, targets: TargetLayout) -> None:
    state = Autoencoder(layout_of(), model, targets).state_dict()
    assert weight_shapes(layout_of(), model, targets) == {name: tuple(t.shape) for name, t in state.items()}


def test_a_latent_has_propensities_if_at_most_a_quarter_of_it_are_such() -> None:
    targets = TargetLayout.of(layout_of().spec.model_copy(update={"windows_days": [7, 30]}), [7, 30])
    names = ["return_7d", "volume_7d", "return_30d", "volume_30d"]
    assert propensities_of(targets, LINEAR) == names
    assert propensities_of(targets, LINEAR.model_copy(update={"latent_dim": 15})) == []
    assert propensities_of(NO_TARGETS, LINEAR) == []

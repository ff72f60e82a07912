"""The names and shapes of a network's weights, told without making any."""

import pytest

from tests.unit.test_model import MODEL, layout_of
from userrep.model.autoencoder import Autoencoder
from userrep.model.weights import weight_shapes

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("num_targets", [0, 5])
def test_shapes_are_those_of_the_weights(num_targets: int) -> None:
    state = Autoencoder(layout_of(), MODEL, num_targets=num_targets).state_dict()
    assert weight_shapes(layout_of(), MODEL, num_targets) == {name: tuple(t.shape) for name, t in state.items()}

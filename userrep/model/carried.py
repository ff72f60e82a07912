"""Inputs that a latent carries as they are, in dimensions of their own.

Which items a user takes next is told best by the direction of all that the user has taken, in every one of its
dimensions; whether the user comes back, by plain counts. Both suffer in a code that has to hold everything. So the
first dimensions of a latent are inputs. Those after them are an autoencoder's code of all inputs, these included:
the main axes of everything are worth having once more, what is left beside the carried inputs is mostly noise.
"""

import numpy as np
from numpy.typing import NDArray

from userrep import config
from userrep.features.layout import InputLayout
from userrep.model.tensor_file import Tensors

_COUNT = 0.5  # beside a vector's number 1: a distance is one of tastes before it is one of habits
_PICKS = 0.3  # in a direction: all of it while there are no events, little beside many


def carried_inputs(layout: InputLayout, model: config.Model) -> NDArray[np.float32]:
    """Return weight_CF: each of C carried dimensions is a weighted sum of the F scaled inputs.

    Carried are, as long as they fit into ``model.carried_share`` of the latent, all counts and days; then, modality by
    modality, the direction of what was taken over the longest time, onboarding picks added. C may be 0.
    """
    blocks = {block.name: block for block in layout.blocks}
    spec, carried = layout.spec, np.zeros((0, layout.width), np.float32)
    counts = np.zeros((len(spec.scalars), layout.width), np.float32)
    for row_F, name in zip(counts, spec.scalars, strict=True):
        row_F[blocks[name].start] = _COUNT
    tastes = []
    for modality, dim in spec.modalities.items():
        taste = np.zeros((dim, layout.width), np.float32)
        for column, weight in ((f"{modality}_{spec.span}d", 1.0), (f"{modality}_onboarding", _PICKS)):
            if column in blocks:
                np.fill_diagonal(taste[:, blocks[column].start :], weight)
        tastes.append(taste)
    for rows in (counts, *tastes):
        if len(carried) + len(rows) <= model.carried_share * model.latent_dim:
            carried = np.concatenate([carried, rows])
    return carried


def num_carried_by(tensors: Tensors) -> int:
    """Count the first dimensions that a model's hidden layer has no part in."""
    learned_D = np.flatnonzero(tensors["encoder_latent.weight"].any(axis=1))
    return int(learned_D[0]) if learned_D.size else len(tensors["encoder_latent.weight"])

"""Inputs that a latent carries in dimensions of their own, as they are or whitened.

Which items a user takes next is told best by the direction of all that the user has taken, in every one of its
dimensions; whether the user comes back, by plain counts; whom a user is like while little is known, by attributes. All
suffer in a code that has to hold everything. So the first dimensions of a latent are inputs. Those after them are an
autoencoder's code of all inputs, these included: the main axes of everything are worth having once more, what is left
beside the carried inputs is mostly noise.

The directions of the first modality are whitened, a little: few axes hold most of what users differ in, and what two
users have in common beside these is told by the many small ones.
Shapes: B rows, F inputs, C carried dimensions, E numbers of an item vector.
"""

from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from userrep import config
from userrep.features.layout import Block, InputLayout
from userrep.model.tensor_file import Tensors

_COUNT = 0.5  # beside a vector's number 1: a distance is one of tastes before it is one of habits
_SHORTER = 1 / 3  # of the weight of the next longer window: recent events are in that, too, and count a little more
_PICKS = 0.15  # all there is of a direction while there are no events, and little beside them
_ATTRIBUTE = 0.3  # each dimension's deviation
_ATTRIBUTE_DIM = 8
_RIDGE = 5.0  # beside variances of mean 1: axes that hardly vary don't become as loud as the others


def carried_inputs(layout: InputLayout, model: config.Model) -> NDArray[np.float32]:
    """Return weight_CF: each of C carried dimensions is a weighted sum of the F scaled inputs.

    Carried are, as long as they fit into ``model.carried_share`` of the latent, all counts and days; where what was
    taken points, in the first modality; each attribute; where it points in the other modalities. C may be 0; it does
    not depend on vocabularies.
    """
    blocks = {block.name: block for block in layout.blocks}
    spec, carried = layout.spec, np.zeros((0, layout.width), np.float32)
    counts = np.zeros((len(spec.scalars), layout.width), np.float32)
    for row_F, name in zip(counts, spec.scalars, strict=True):
        row_F[blocks[name].start] = _COUNT
    tastes = [_taste(layout, modality) for modality in spec.modalities]
    attributes = [_attribute(layout, block) for block in layout.blocks if block.kind == "one_hot"]
    groups = (counts, *tastes[:1], *attributes, *tastes[1:])
    for rows, has_room in zip(groups, _have_room(layout, model), strict=True):
        if has_room:
            carried = np.concatenate([carried, rows])
    return carried


def _have_room(layout: InputLayout, model: config.Model) -> list[bool]:
    """Say which fit: the counts, the first modality's direction, each attribute, the other modalities' directions."""
    spec, room, found = layout.spec, model.carried_share * model.latent_dim, []
    dims, attributes = [*spec.modalities.values()], [_ATTRIBUTE_DIM] * len(spec.attributes)
    for width in (len(spec.scalars), *dims[:1], *attributes, *dims[1:]):
        found.append(width <= room)
        room -= width * found[-1]
    return found


class Tastes(NamedTuple):
    """The inputs whose directions are whitened: the first ``num`` vectors of all, of ``dim`` numbers each; or 0 of 0.

    A layout begins with the vectors of its first modality.
    """

    num: int
    dim: int

    @property
    def width(self) -> int:
        """How many inputs these are."""
        return self.num * self.dim


def carried_tastes(layout: InputLayout, model: config.Model) -> Tastes:
    """Say which inputs the first modality's direction is carried of; none where there is no room for it."""
    modality, dim = next(iter(layout.spec.modalities.items()), ("", 0))
    if not dim or not _have_room(layout, model)[1]:
        return Tastes(0, 0)
    return Tastes(sum(pooled.modality == modality for pooled in layout.spec.pooled), dim)


def whitening_of(x_BF: NDArray[np.float32], layout: InputLayout, model: config.Model) -> NDArray[np.float32]:
    """Measure whitening_EE: the symmetric root of the inverse covariance of the longest window's directions.

    Of the covariance with a ridge, so that large axes are damped and small ones stay about as they are. ``x_BF``:
    scaled training rows, some thousands.
    """
    tastes = carried_tastes(layout, model)
    place = len(layout.spec.windows) - 1
    taste_BE = x_BF[:, place * tastes.dim : (place + 1) * tastes.dim].astype(np.float64)
    there_BE = taste_BE[taste_BE.any(axis=1)]
    if len(there_BE) < 2:
        return np.eye(tastes.dim, dtype=np.float32)
    variance_E, axes_EE = np.linalg.eigh(np.atleast_2d(np.cov(there_BE, rowvar=False)))
    variance_E = np.maximum(variance_E, 0) / max(variance_E.mean(), 1e-12)
    whitening_EE: NDArray[np.float32] = ((axes_EE * (variance_E + _RIDGE) ** -0.5) @ axes_EE.T).astype(np.float32)
    return whitening_EE


def _taste(layout: InputLayout, modality: str) -> NDArray[np.float32]:
    """Add up the directions of one modality, over all windows and of the picks.

    They are turned by the cosine transform. On the axes of the item vectors a bilinear reader of users and items
    learns worse: what it wants is a diagonal then, and steps of Adam are as large everywhere else.
    """
    spec, blocks = layout.spec, {block.name: block for block in layout.blocks}
    dim, longest_first = spec.modalities[modality], spec.windows[::-1]
    turn_DD, taste = dct(np.eye(dim), norm="ortho", axis=0), np.zeros((dim, layout.width), np.float32)
    for pooled in spec.pooled:
        if pooled.modality == modality:
            block = blocks[pooled.column]
            weight = _PICKS if pooled.window_days is None else _SHORTER ** longest_first.index(pooled.window_days)
            taste[:, block.start : block.stop] = weight * turn_DD
    return taste


def _attribute(layout: InputLayout, block: Block) -> NDArray[np.float32]:
    """Give each value of an attribute a direction of its own, read off the hash of its name: the same in all spaces.

    Few dimensions are enough, as those of two values are hardly ever near each other (random indexing, Kanerva et al.
    2000), and their number is the same whatever values come and go.
    """
    values = layout.vocabulary[block.name]
    digests = [sha256(f"{block.name}={value}".encode()).digest() for value in values]
    code_VC = np.stack([np.frombuffer(digest, np.int8, _ATTRIBUTE_DIM) + 0.5 for digest in digests])
    code_VC /= np.linalg.norm(code_VC, axis=1, keepdims=True)
    rows = np.zeros((_ATTRIBUTE_DIM, layout.width), np.float32)
    rows[:, block.start : block.stop] = _ATTRIBUTE * np.sqrt(_ATTRIBUTE_DIM / len(values)) * code_VC.T
    return rows


def num_carried_by(tensors: Tensors) -> int:
    """Count the first dimensions that a model's hidden layer has no part in."""
    learned_D = np.flatnonzero(tensors["encoder_latent.weight"].any(axis=1))
    return int(learned_D[0]) if learned_D.size else len(tensors["encoder_latent.weight"])

"""The vector of a user of whom nothing is known."""

import numpy as np
from numpy.typing import NDArray

from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact


def new_user_vector(folder: str, content_hash: str) -> NDArray[np.float32]:
    """Encode an empty user, ``empty_F``, with the space's artifact, as batch jobs would encode one.

    ``folder``, ``content_hash``: the space's artifact. Raises ArtifactError if it is not as it was written.
    """
    artifact = load_artifact(folder, content_hash)
    vector: NDArray[np.float32] = Encoder(artifact).encode(artifact.tensors["empty_F"][None])[0]
    return vector

"""A space's encoder for services, notebooks and MLflow: users in Python in, vectors out. It needs no Spark.

Shapes: B users, D latent dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from userrep.inference.encoder import Encoder
from userrep.inference.users import dicts_as_arrow, frame_as_arrow
from userrep.model.artifact import load_artifact


class EmbeddingModel:
    """Users in pandas or as dicts to embeddings, to the bit those of the snapshots.

    A service needs the folder of the space's artifact, or a copy of it, and of this package's requirements torch,
    pyarrow, NumPy, pandas, pydantic, PyYAML and safetensors: no Spark, no Java. Threads may share a model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @classmethod
    def load(cls, folder: str, content_hash: str | None = None) -> "EmbeddingModel":
        """Read a space's artifact, a path or a URI; ``content_hash``: of the one that is expected there.

        Raises
        ------
        ArtifactError
            If the files are not what their manifest says, or another artifact's.
        """
        return cls(Encoder(load_artifact(folder, content_hash)))

    def predict(self, users: pd.DataFrame | Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> NDArray[np.float32]:
        """Return z_BD of users with the columns of ``user_features``; of one user, given as a dict, z_D.

        ``users``: a frame as of Spark's ``toPandas`` or Arrow's ``to_pandas``, with all feature columns of the space;
        or dicts. Lists may be arrays, maps may be dicts or lists of pairs. What is None or NaN, or what a dict leaves
        out, is absent: ``{}`` is a user of whom nothing is known. A pooled block counts where its ``has_`` flag is
        true. Cost: one Python object for each list and map; one user takes one pass of 128 rows.

        Raises
        ------
        UsageError
            If a frame lacks a column, a dict has a name that is no feature's, or a value is of another type.
        ValueError
            If lists have another width than the model's.
        """
        spec = self._encoder.layout.spec
        if isinstance(users, pd.DataFrame):
            return self._encoder.embed(frame_as_arrow(users, spec))
        if isinstance(users, Mapping):
            z_D: NDArray[np.float32] = self._encoder.embed(dicts_as_arrow([users], spec))[0]
            return z_D
        return self._encoder.embed(dicts_as_arrow(users, spec))

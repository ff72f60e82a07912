"""A space's encoder for services, notebooks and MLflow. It encodes pandas frames and dicts, or rows of Spark.

Shapes: B users, D latent dimensions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from userrep.config import Storage
from userrep.inference.encoder import Encoder, worker_encoder
from userrep.inference.to_arrow import dicts_as_arrow, frame_as_arrow
from userrep.model.artifact import load_artifact


class EmbeddingModel:
    """Encodes users given as a pandas frame or as dicts. Embeddings equal those of the snapshots to the bit.

    ``load`` takes the storage type of the snapshots. A service needs the folder of the space's artifact, or a copy of
    it, and these requirements of the package: torch, pyarrow, NumPy, pandas, pydantic, PyYAML and safetensors. It needs
    neither Spark nor Java. Thread-safe.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @classmethod
    def load(cls, folder: str, content_hash: str | None = None, storage: Storage = "float32") -> "EmbeddingModel":
        """Load the model from the artifact folder of a space, a path or a URI.

        ``storage``: type that vectors are rounded to, as with ``snapshots.storage``.

        Raises
        ------
        ArtifactError
            If the artifact is missing or damaged, or does not have the given ``content_hash``.
        """
        return cls(Encoder(load_artifact(folder, content_hash), storage))

    def predict(self, users: pd.DataFrame | Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> NDArray[np.float32]:
        """Return z_BD of several users, or z_D of a single user given as a dict.

        Cost: one Python object per list and map. A single user costs one pass of 128 rows.

        Parameters
        ----------
        users : a frame with all feature columns of the space, as returned by Spark's ``toPandas`` or Arrow's
            ``to_pandas``, or dicts with some of them. Lists may be arrays, maps may be dicts or lists of pairs. None,
            NaN and keys missing from a dict mean absent, so ``{}`` is a user without any data. Lists must not contain
            NaN. A pooled block is used only if its ``has_`` flag is true.

        Raises
        ------
        UsageError
            If a frame lacks a column, a dict has an unknown key, or a value has the wrong type.
        ValueError
            If a list has another width than in the model.
        """
        spec = self._encoder.layout.spec
        if isinstance(users, pd.DataFrame):
            return self._encoder.embed(frame_as_arrow(users, spec))
        if isinstance(users, Mapping):
            z_D: NDArray[np.float32] = self._encoder.embed(dicts_as_arrow([users], spec))[0]
            return z_D
        return self._encoder.embed(dicts_as_arrow(users, spec))


def embedding_udf(space: str, storage: Storage = "float32") -> Callable[..., object]:
    """Return a pandas UDF that encodes a struct of feature columns as an array<float>.

    The embeddings equal those of snapshots with the same ``storage`` to the bit. ``space`` is the folder of the space's
    artifact, a path or a URI that workers can also read. In a notebook:

        embedding = embedding_udf(artifact_folder(tables, find_space(tables, space_id)))
        features.select("user_id", embedding(F.struct("*")).alias("embedding"))

        spark.udf.register("embedding", embedding)
        spark.sql("SELECT user_id, embedding(struct(*)) AS embedding FROM features")

    The struct must contain all feature columns of the space, by name; other columns are ignored. Nulls are encoded as
    absent, so a user without a match in a left join is a user without any data. Each worker reads the weights once.
    Cost: all rows pass through Spark and pandas. To encode all users of a date, use the snapshot job,
    ``userrep run embed_users``.

    Raises
    ------
    ArtifactError
        If the artifact is missing or damaged; in the workers, if it has changed since this call.
    UsageError
        In the workers, if the struct lacks a column.
    """
    from pyspark.sql.pandas.functions import pandas_udf

    content_hash = load_artifact(space).manifest.content_hash

    def embedding(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        model = EmbeddingModel(worker_encoder(space, content_hash, storage))
        for users in batches:
            yield pd.Series(list(model.predict(users)))

    return pandas_udf(embedding, "array<float>")  # type: ignore[call-overload, no-any-return]

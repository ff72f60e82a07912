"""How well a space gives back what its encoder was given: the error grows where inputs are new to it."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame

from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import ReconstructionLoss

_ROWS = 1024  # encoded at once


def reconstruction_errors(rows: DataFrame, *, folder: str, content_hash: str) -> dict[str, float]:
    """Return the squared error of each block of inputs in the mean over all rows, as training tells it of its own.

    Parameters
    ----------
    rows : user features, as they are stored. folder, content_hash : the space's artifact.

    Cost: one pass, through encoder and decoder; a number per block and task reaches the driver.
    """

    def errors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        artifact, autoencoder, loss = _worker_model(folder, content_hash)
        num_rows, sum_K = 0, np.zeros(len(artifact.layout.blocks))
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                part = batch.slice(start, _ROWS)
                x_BF = torch.from_numpy(artifact.scaler.apply(artifact.layout, artifact.layout.raw(part)))
                with torch.inference_mode():
                    error_K = loss(autoencoder(x_BF).reconstruction_BF, x_BF)
                num_rows, sum_K = num_rows + len(x_BF), sum_K + len(x_BF) * error_K.numpy()
        yield pa.RecordBatch.from_pydict({"num_rows": [num_rows], "errors": [sum_K]})

    parts = rows.mapInArrow(errors, "num_rows BIGINT, errors ARRAY<DOUBLE>").collect()
    mean_K = np.sum([part.errors for part in parts], axis=0) / max(1, sum(part.num_rows for part in parts))
    names = [block.name for block in load_artifact(folder, content_hash).layout.blocks]
    return dict(zip(names, mean_K.tolist(), strict=True))


@lru_cache(maxsize=2)
def _worker_model(folder: str, content_hash: str) -> tuple[Artifact, Autoencoder, ReconstructionLoss]:
    """Load a space's artifact within a Spark task; a Python worker does it once."""
    torch.set_num_threads(1)  # Spark runs one task a core
    artifact = load_artifact(folder, content_hash)
    return artifact, artifact.encoder(), ReconstructionLoss(artifact.layout)

"""Reconstruction error of a space, which grows when inputs differ from those it was trained on."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import ReconstructionLoss

_ROWS = 1024  # rows per forward pass


@dataclass(frozen=True)
class Reconstruction:
    """The encoder and decoder of a space's artifact, for use within a Spark task."""

    artifact: Artifact
    autoencoder: Autoencoder
    loss: ReconstructionLoss

    def errors(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """Return the squared error of each block of inputs, summed over rows of user features.

        The error of a row is the same as in the training loss.
        """
        sum_K = np.zeros(len(self.artifact.layout.blocks))
        for start in range(0, batch.num_rows, _ROWS):
            raw_BF = self.artifact.layout.raw(batch.slice(start, _ROWS))
            x_BF = torch.from_numpy(self.artifact.scaler.apply(self.artifact.layout, raw_BF))
            with torch.inference_mode():
                error_K = self.loss(self.autoencoder(x_BF).reconstruction_BF, x_BF)
            sum_K += len(x_BF) * error_K.numpy()
        return sum_K


@lru_cache(maxsize=2)
def reconstruction_of(folder: str, content_hash: str) -> Reconstruction:
    """Load a space's artifact. The cache makes each Python worker load it only once."""
    torch.set_num_threads(1)  # Spark runs one task per core
    artifact = load_artifact(folder, content_hash)
    return Reconstruction(artifact, artifact.encoder(), ReconstructionLoss(artifact.layout))

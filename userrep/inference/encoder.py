"""User features to embeddings: the one forward pass of batch jobs, notebooks, services, streaming and tests.

A vector must not depend on which rows it shares a batch with, to the bit: batch and stream would differ otherwise.
Matrix products take another order of summation with another height, and at odd widths even from row to row. So
every pass has one height and widths that are multiples of 16 (padded with zeros, which change no sum), and each
encoder looks for itself whether that holds on its machine; where it doesn't, rows are encoded one by one.
Shapes: B rows, F inputs, H hidden units, D latent dimensions; F and H padded.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from userrep.model.artifact import Artifact, load_artifact

ROWS = 128  # of every forward pass: nearly as quick a row as taller ones, and a service waits for one for one user
_LAID_OUT = 2048  # rows that become inputs at once
_MULTIPLE = 16


class Encoder:
    """Encodes batches of user features with a space's scaler and encoder. Build it once per process.

    Threads may share it. Needs torch, pyarrow and NumPy, no Spark.
    """

    def __init__(self, artifact: Artifact) -> None:
        autoencoder = artifact.encoder()
        self.layout, self._scaler = artifact.layout, artifact.scaler
        self._hidden = _padded(autoencoder.encoder_hidden)
        self._latent = _padded(autoencoder.encoder_latent)
        self._skip = _padded(autoencoder.encoder_skip)
        self.latent_dim = artifact.manifest.model.latent_dim
        self._rows = ROWS if self._position_does_not_matter() else 1

    def embed(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return z_BD of a batch with the columns of user features.

        What is null is encoded as absent, as it is in training. Raises ValueError if lists have another width than
        the model's.
        """
        z_BD = np.empty((batch.num_rows, self.latent_dim), np.float32)
        for start in range(0, batch.num_rows, _LAID_OUT):
            part = batch.slice(start, _LAID_OUT)
            self._encode(self.layout.raw(part), out=z_BD[start : start + part.num_rows])
        return z_BD

    @torch.inference_mode()
    def _encode(self, raw_BF: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Scale and encode unscaled inputs (here F is the layout's width), a pass after the other."""
        padded_BF = torch.zeros(self._rows, self._hidden[0].shape[1])  # torch's memory: always aligned alike
        x_BF = padded_BF.numpy()[:, : self.layout.width]
        for start in range(0, len(raw_BF), self._rows):
            part_BF = raw_BF[start : start + self._rows]
            num = len(part_BF)
            self._scaler.apply(self.layout, part_BF, out=x_BF[:num])
            out[start : start + num] = self._forward(padded_BF)[:num, : self.latent_dim].numpy()

    @torch.inference_mode()
    def _forward(self, x_BF: Tensor) -> Tensor:
        return linear(gelu(linear(x_BF, *self._hidden)), *self._latent) + linear(x_BF, *self._skip)

    def _position_does_not_matter(self) -> bool:
        """Encode one row in all places of a pass, and compare."""
        width = self._hidden[0].shape[1]
        x_1F = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
        z_BD = self._forward(x_1F.repeat(ROWS, 1))
        return bool((z_BD == z_BD[0]).all())


@lru_cache(maxsize=4)
def worker_encoder(folder: str, content_hash: str) -> Encoder:
    """Return the encoder of a space's artifact within a Spark task; a Python worker loads it once.

    Raises ArtifactError if the artifact is not the one with this hash.
    """
    torch.set_num_threads(1)  # Spark runs one task a core
    return Encoder(load_artifact(folder, content_hash))


def _padded(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias, if it has one, with both widths padded by zeros."""
    more_out, more_in = (-width % _MULTIPLE for width in layer.weight.shape)
    weight = pad(layer.weight, (0, more_in, 0, more_out))
    return weight, None if layer.bias is None else pad(layer.bias, (0, more_out))

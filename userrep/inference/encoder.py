"""User features to embeddings: the one forward pass of batch jobs, streaming and tests.

A vector must not depend on which rows it shares a batch with, to the bit: batch and stream would differ otherwise.
Matrix products take another order of summation with another height, and at odd widths even from row to row. So
every pass has one height and widths that are multiples of 16 (padded with zeros, which change no sum), and each
encoder looks for itself whether that holds on its machine; where it doesn't, rows are encoded one by one.
Shapes: B rows, F inputs, H hidden units, D latent dimensions; all but D padded.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from userrep.model.artifact import Artifact

ROWS = 1024  # of every forward pass
_MULTIPLE = 16


class Encoder:
    """Encodes batches of user features with a space's scaler and encoder. Build it once per worker."""

    def __init__(self, artifact: Artifact) -> None:
        autoencoder = artifact.encoder()
        self._layout, self._scaler = artifact.layout, artifact.scaler
        self._hidden = _padded(autoencoder.encoder_hidden)
        self._latent = _padded(autoencoder.encoder_latent)
        self.latent_dim = artifact.manifest.model.latent_dim
        self._rows = ROWS if self._position_does_not_matter() else 1

    def embed(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return z_BD of a batch with the columns of user features."""
        z_BD = np.empty((batch.num_rows, self.latent_dim), np.float32)
        for start in range(0, batch.num_rows, ROWS):
            part = batch.slice(start, ROWS)
            z_BD[start : start + part.num_rows] = self.encode(self._scaler.apply(self._layout, self._layout.raw(part)))
        return z_BD

    def encode(self, x_BF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return z_BD of scaled inputs (here F is the layout's width)."""
        z_BD = np.empty((len(x_BF), self.latent_dim), np.float32)
        for start in range(0, len(x_BF), self._rows):
            part_BF = x_BF[start : start + self._rows]
            padded_BF = torch.zeros(self._rows, self._hidden[0].shape[1])  # torch's memory: always aligned alike
            padded_BF[: len(part_BF), : part_BF.shape[1]] = torch.from_numpy(part_BF)
            z_BD[start : start + len(part_BF)] = self._forward(padded_BF)[: len(part_BF), : self.latent_dim].numpy()
        return z_BD

    @torch.inference_mode()
    def _forward(self, x_BF: Tensor) -> Tensor:
        return linear(gelu(linear(x_BF, *self._hidden)), *self._latent)

    def _position_does_not_matter(self) -> bool:
        """Encode one row in all places of a pass, and compare."""
        width = self._hidden[0].shape[1]
        x_1F = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
        z_BD = self._forward(x_1F.repeat(ROWS, 1))
        return bool((z_BD == z_BD[0]).all())


def _padded(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias with both widths padded by zeros."""
    more_out, more_in = (-width % _MULTIPLE for width in layer.weight.shape)
    return pad(layer.weight, (0, more_in, 0, more_out)), pad(layer.bias, (0, more_out))

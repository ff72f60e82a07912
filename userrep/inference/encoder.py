"""User features to embeddings: the one forward pass of batch jobs, notebooks, services, streaming and tests.

A vector must not depend on which rows it shares a batch with, to the bit: batch and stream would differ otherwise.
Matrix products take another order of summation with another height, and at odd widths even from row to row. So
every pass has one height and widths that are multiples of 16 (padded with zeros, which change no sum), and each
encoder looks for itself whether that holds on its machine; where it doesn't, rows are encoded one by one.
Shapes: B rows, F inputs, H hidden units, D latent dimensions, all but B padded; N = H + D.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import gelu, pad

from userrep.features.layout import Scaler
from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder

ROWS = 128  # of every forward pass: as quick a row as taller ones, and a service waits for one for one user
_LAID_OUT = 1024  # rows that become inputs at once: they stay in the cache of a core
_MULTIPLE = 16


class Encoder:
    """Encodes batches of user features with a space's scaler and encoder. Build it once per process.

    Threads may share it. Needs torch, pyarrow and NumPy, no Spark.
    """

    def __init__(self, artifact: Artifact) -> None:
        autoencoder = artifact.encoder()
        self.layout, self._scaler = artifact.layout, _padded_scaler(artifact.scaler)
        weight_DF, bias_D, latent_DH = _in_one_layer(autoencoder)
        hidden = getattr(autoencoder, "encoder_hidden", None)
        first = [(hidden.weight, hidden.bias)] if hidden is not None else []
        # Hidden layer and linear part are one product, in the layout in which low passes are quick.
        weights, biases = zip(*[*first, (weight_DF, bias_D)], strict=True)
        self._first_FN = torch.cat([_padded(weight) for weight in weights]).T.contiguous()
        self._bias_N = torch.cat([_padded(bias) for bias in biases])
        self._latent_HD = _padded(latent_DH).T.contiguous()
        self.latent_dim = artifact.manifest.model.latent_dim
        self._rows = ROWS if self._position_does_not_matter() else 1

    def embed(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return z_BD of a batch with the columns of user features.

        What is null is encoded as absent, as it is in training. Raises ValueError if lists have another width than
        the model's.
        """
        z_BD = np.empty((batch.num_rows, self.latent_dim), np.float32)
        height = min(_LAID_OUT, -(-batch.num_rows // ROWS) * ROWS)
        padded_BF = torch.zeros(height, len(self._first_FN))  # torch's memory: always aligned alike
        for start in range(0, batch.num_rows, _LAID_OUT):
            part = batch.slice(start, _LAID_OUT)
            x_BF = padded_BF.numpy()[: part.num_rows]
            self.layout.raw(part, out=x_BF[:, : self.layout.width])
            self._scaler.apply(self.layout, x_BF, out=x_BF)
            self._encode(padded_BF, out=z_BD[start : start + part.num_rows])
        return z_BD

    @torch.inference_mode()
    def _encode(self, padded_BF: Tensor, out: NDArray[np.float32]) -> None:
        """Encode the rows that ``out`` has, a pass after the other; the last takes rows that do not count with it."""
        for start in range(0, len(out), self._rows):
            part_BD = out[start : start + self._rows]
            z_BD = self._forward(padded_BF[start : start + self._rows])
            part_BD[:] = z_BD[: len(part_BD), : self.latent_dim].numpy()

    @torch.inference_mode()
    def _forward(self, x_BF: Tensor) -> Tensor:
        """Encode one pass."""
        num_hidden = len(self._latent_HD)
        first_BN = torch.addmm(self._bias_N, x_BF, self._first_FN)
        if not num_hidden:
            return first_BN
        return torch.addmm(first_BN[:, num_hidden:], gelu(first_BN[:, :num_hidden]), self._latent_HD)

    def _position_does_not_matter(self) -> bool:
        """Encode one row in all places of a pass, and compare."""
        x_1F = torch.randn(1, len(self._first_FN), generator=torch.Generator().manual_seed(0))
        z_BD = self._forward(x_1F.repeat(ROWS, 1))
        return bool((z_BD == z_BD[0]).all())


@lru_cache(maxsize=4)
def worker_encoder(folder: str, content_hash: str) -> Encoder:
    """Return the encoder of a space's artifact within a Spark task; a Python worker loads it once.

    Raises ArtifactError if the artifact is not the one with this hash.
    """
    torch.set_num_threads(1)  # Spark runs one task a core
    return Encoder(load_artifact(folder, content_hash))


def _padded_scaler(scaler: Scaler) -> Scaler:
    """Return a scaler of padded rows, which leaves zeros where they are padded: odd widths take NumPy twice as long."""
    more = (0, -len(scaler.center_F) % _MULTIPLE)
    return Scaler(center_F=np.pad(scaler.center_F, more), scale_F=np.pad(scaler.scale_F, more, constant_values=1))


def _in_one_layer(autoencoder: Autoencoder) -> tuple[Tensor, Tensor, Tensor]:
    """Return the linear part's weight_DF and bias_D, propensities last, and latent_DH with zeros for these."""
    weight_DF: Tensor = autoencoder.encoder_linear.weight
    bias_D: Tensor = autoencoder.encoder_linear.bias
    latent_DH = weight_DF[:, :0]
    if hasattr(autoencoder, "encoder_hidden"):
        latent_DH = autoencoder.encoder_latent.weight
    if autoencoder.has_propensities:
        weight_DF = torch.cat([weight_DF, autoencoder.propensity_PF])
        bias_D = torch.cat([bias_D, autoencoder.propensity_P])
        latent_DH = pad(latent_DH, (0, 0, 0, len(bias_D) - len(latent_DH)))
    return weight_DF, bias_D, latent_DH


def _padded(tensor: Tensor) -> Tensor:
    """Return a layer's weight or bias with all widths padded by zeros."""
    return pad(tensor, [more for width in reversed(tensor.shape) for more in (0, -width % _MULTIPLE)])

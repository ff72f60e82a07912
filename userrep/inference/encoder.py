"""The forward pass from user features to embeddings, shared by batch jobs, notebooks, services and streaming.

A vector must not depend on the other rows of its batch, not even in the last bit; otherwise batch and stream would
differ. Matrix products sum in an order that depends on the number of rows and, at odd widths, on the row itself. Every
pass therefore has the same number of rows, and all widths are padded with zeros to multiples of 16. Each encoder checks
that this is sufficient on its machine; if it is not, it encodes rows one by one.
Shapes: B rows, F inputs, H hidden units, D latent dimensions, G hinges of the propensities, all padded except B;
N = H + D.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import gelu, pad, relu

from userrep.config import Storage
from userrep.features.layout import Scaler
from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder

ROWS = 128  # per forward pass: as fast per row as larger passes, and a service encodes a whole pass for one user
_INPUT_ROWS = 1024  # rows converted to inputs at a time, so that they stay in the core's cache
_MULTIPLE = 16  # of all padded widths


class Encoder:
    """Encodes batches of user features with a space's scaler and weights. Build it once per process.

    Vectors are rounded to the numbers of ``storage``. Thread-safe. Needs torch, pyarrow and NumPy, but not Spark.
    """

    def __init__(self, artifact: Artifact, storage: Storage = "float32") -> None:
        self._storage = artifact.storage(storage)
        autoencoder = artifact.encoder()
        self.layout, self._scaler = artifact.layout, _padded_scaler(artifact.scaler)
        # Hidden and linear layer form one product, transposed because that is faster for passes of few rows.
        weights, biases, latent_DH = _layers(autoencoder)
        self._first_FN = torch.cat([_padded(weight) for weight in weights]).T.contiguous()
        self._bias_N = torch.cat([_padded(bias) for bias in biases])
        self._latent_HD = _padded(latent_DH).T.contiguous()
        self.latent_dim = artifact.manifest.model.latent_dim
        self._count_G, self._knot_G, self._hinge_GD = _hinges(autoencoder, artifact.layout.counts, self.latent_dim)
        self._rows = ROWS if self._is_position_independent() else 1

    def embed(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return z_BD of a batch with the columns of user features.

        Nulls are encoded as absent, as in training. Raises ValueError if a list has another width than in the model.
        """
        z_BD = np.empty((batch.num_rows, self.latent_dim), np.float32)
        height = min(_INPUT_ROWS, -(-batch.num_rows // ROWS) * ROWS)
        padded_BF = torch.zeros(height, len(self._first_FN))  # torch always aligns its memory the same way
        for start in range(0, batch.num_rows, _INPUT_ROWS):
            part = batch.slice(start, _INPUT_ROWS)
            x_BF = padded_BF.numpy()[: part.num_rows]
            self.layout.raw(part, out=x_BF[:, : self.layout.width])
            self._scaler.apply(self.layout, x_BF, out=x_BF)
            self._encode(padded_BF, out=z_BD[start : start + part.num_rows])
        return self._storage.rounded(z_BD)

    @torch.inference_mode()
    def _encode(self, padded_BF: Tensor, out: NDArray[np.float32]) -> None:
        """Encode the first ``len(out)`` rows in passes. The last pass may read rows beyond them and ignores these."""
        for start in range(0, len(out), self._rows):
            part_BD = out[start : start + self._rows]
            z_BD = self._forward(padded_BF[start : start + self._rows])
            part_BD[:] = z_BD[: len(part_BD), : self.latent_dim].numpy()

    @torch.inference_mode()
    def _forward(self, x_BF: Tensor) -> Tensor:
        """Return z_BD of one pass."""
        num_hidden = len(self._latent_HD)
        first_BN = torch.addmm(self._bias_N, x_BF, self._first_FN)
        z_BD = first_BN[:, num_hidden:]
        if num_hidden:
            z_BD = torch.addmm(z_BD, gelu(first_BN[:, :num_hidden]), self._latent_HD)
        if len(self._hinge_GD):
            z_BD = torch.addmm(z_BD, relu(x_BF[:, self._count_G] - self._knot_G), self._hinge_GD)
        return z_BD

    def _is_position_independent(self) -> bool:
        """Encode the same row at every position of a pass and compare the results to the bit."""
        x_1F = torch.randn(1, len(self._first_FN), generator=torch.Generator().manual_seed(0))
        z_BD = self._forward(x_1F.repeat(ROWS, 1))
        return bool((z_BD == z_BD[0]).all())


@lru_cache(maxsize=4)
def worker_encoder(folder: str, content_hash: str, storage: Storage = "float32") -> Encoder:
    """Return the encoder of a space's artifact for use in a Spark task. Each Python worker loads it once.

    Raises ArtifactError if the artifact does not have this content hash.
    """
    torch.set_num_threads(1)  # Spark runs one task per core
    return Encoder(load_artifact(folder, content_hash), storage)


def _padded_scaler(scaler: Scaler) -> Scaler:
    """Return a scaler of padded rows that keeps the padding zero. NumPy takes twice as long at odd widths."""
    padding = (0, -len(scaler.center_F) % _MULTIPLE)
    return Scaler(center_F=np.pad(scaler.center_F, padding), scale_F=np.pad(scaler.scale_F, padding, constant_values=1))


def _layers(autoencoder: Autoencoder) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the weights and biases of the hidden layer, if any, and the linear layer, and latent_DH.

    Tastes and propensities are the last dimensions of the linear layer. They are zero in latent_DH.
    """
    weight_DF: Tensor = autoencoder.encoder_linear.weight
    bias_D: Tensor = autoencoder.encoder_linear.bias
    if autoencoder.has_tastes:
        weight_DF, bias_D = torch.cat([weight_DF, autoencoder.taste_KF]), torch.cat([bias_D, autoencoder.taste_K])
    if autoencoder.has_propensities:
        weight_DF = torch.cat([weight_DF, autoencoder.propensity_PF])
        bias_D = torch.cat([bias_D, autoencoder.propensity_P])
    if not hasattr(autoencoder, "encoder_hidden"):
        return [weight_DF], [bias_D], weight_DF[:, :0]
    hidden, latent = autoencoder.encoder_hidden, autoencoder.encoder_latent.weight
    return [hidden.weight, weight_DF], [hidden.bias, bias_D], pad(latent, (0, 0, 0, len(bias_D) - len(latent)))


def _hinges(autoencoder: Autoencoder, counts: slice, latent_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the input and the knot of each hinge, and hinge_GD, its weights; all empty without propensities."""
    if not autoencoder.has_propensities:
        return torch.empty(0, dtype=torch.long), torch.empty(0), torch.empty(0, 0)
    knot_KS, hinge_PG = autoencoder.propensity_knot_KS, autoencoder.propensity_PG
    count_G = torch.arange(counts.start, counts.stop).repeat(len(knot_KS))
    hinge_GD = _padded(pad(hinge_PG, (0, 0, latent_dim - len(hinge_PG), 0))).T.contiguous()
    padding = (0, len(hinge_GD) - len(count_G))
    return pad(count_G, padding), pad(knot_KS.flatten(), padding), hinge_GD


def _padded(tensor: Tensor) -> Tensor:
    """Pad all dimensions of a weight or bias with zeros to the next multiple. Torch 2.7 cannot `pad` empty tensors."""
    padded = tensor.new_zeros([width + -width % _MULTIPLE for width in tensor.shape])
    padded[tuple(slice(width) for width in tensor.shape)] = tensor
    return padded

"""Bags of items for torch: batches of users, users that are held out, and training that is stopped by those.

Shapes: U users, Q held-out users, V items, N rows, B users of a batch, E entries of a batch, P places of a ranking.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from userrep.errors import UsageError
from userrep.evaluation.heads import alone, copied
from userrep.evaluation.metrics import ndcg
from userrep.evaluation.rows import Ints

Net = TypeVar("Net", bound=nn.Module)

BATCH = 256  # users
_EVERY = 10  # of the users, one in ten is held out
_HIDDEN = 5  # of a held-out user's items, one in five is to be found by the others
_PLACES = 100
_CHECK_STEPS, _PATIENCE = 40, 6


class Bags(NamedTuple):
    """Items of B users, one user's after the other's: ``rows_B`` of the matrix, where each begins, how many it has."""

    rows_B: Ints
    item_E: Tensor
    start_B: Tensor
    length_B: Tensor

    @property
    def row_E(self) -> Tensor:
        """Say of each entry which of the B users it belongs to."""
        return torch.arange(len(self.length_B)).repeat_interleave(self.length_B)


def bags_of(counts: csr_array, rows: Ints) -> Iterator[Bags]:
    """Take rows of a matrix of counts in batches; what counts is only which items are there."""
    for first in range(0, len(rows), BATCH):
        rows_B = rows[first : first + BATCH]
        some = csr_array(counts[rows_B])
        starts = torch.from_numpy(some.indptr.astype(np.int64))
        yield Bags(rows_B, torch.from_numpy(some.indices.astype(np.int64)), starts[:-1], starts.diff())


@dataclass(frozen=True)
class HeldOut:
    """Q users that nothing is trained on: what of their items is shown, and what is to be found."""

    user_Q: Ints
    shown_QV: csr_array
    hidden_QV: csr_array

    def ndcg(self, scores_of: Callable[[csr_array, Ints], NDArray[np.float32]]) -> float:
        """Rank all items but the shown by the scores of (shown, users); return the mean nDCG@100 of the hidden."""
        num_places, values = min(_PLACES, self.shown_QV.shape[1]), []
        for first in range(0, len(self.user_Q), BATCH):
            some = slice(first, first + BATCH)
            shown_BV, is_hidden_BV = csr_array(self.shown_QV[some]), self.hidden_QV[some].toarray() > 0
            score_BV = np.where(shown_BV.toarray() > 0, -np.inf, scores_of(shown_BV, self.user_Q[some]))
            best_BP = np.argsort(-score_BV, axis=1, kind="stable")[:, :num_places]
            gain_BP = np.take_along_axis(is_hidden_BV, best_BP, axis=1).astype(np.float64)
            values.append(ndcg(gain_BP, is_hidden_BV.sum(axis=1)))
        return float(np.concatenate(values).mean())


def held_out(counts_UV: csr_array, rng: np.random.Generator) -> tuple[Ints, HeldOut]:
    """Set users with more than one item apart; return the others of this kind, and those.

    Raises
    ------
    UsageError
        If there are fewer than 20 of them.
    """
    able = rng.permutation(np.flatnonzero(np.diff(counts_UV.indptr) > 1))
    if len(able) < 2 * _EVERY:
        raise UsageError(
            f"evaluate: {len(able)} users have met more than one item before the training's end; baselines want "
            f"{2 * _EVERY} to be trained on. Evaluate a space with a later training.as_ofs.until, or on a larger log."
        )
    user_Q, training = np.split(able, [len(able) // _EVERY])
    mine_QV = csr_array(counts_UV[user_Q])
    is_hidden_E = np.zeros(mine_QV.nnz, bool)
    for start, count in zip(mine_QV.indptr, np.diff(mine_QV.indptr), strict=False):
        is_hidden_E[start + rng.permutation(count)[: max(1, count // _HIDDEN)]] = True
    return training, HeldOut(user_Q, _only(mine_QV, ~is_hidden_E), _only(mine_QV, is_hidden_E))


def trained(
    make: Callable[[], Net],
    loss: Callable[[Net, Bags, int], Tensor],
    check: Callable[[Net], float],
    counts_UV: csr_array,
    users: Ints,
    *,
    max_steps: int,
    learning_rate: float,
    seed: int,
) -> tuple[Net, float]:
    """Train a net on batches of these users until some checks in a row are no better; return the best.

    ``loss``: of the net, a batch, and the number of the step from 1. Single-threaded, so that the bits repeat.
    """
    rng, step, since, best = np.random.default_rng(seed), 0, 0, -np.inf
    with alone(seed):
        net = make()
        state = copied(net)
        optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
        while step < max_steps and since < _PATIENCE:
            for bags in bags_of(counts_UV, rng.permutation(users)):
                step += 1
                optimizer.zero_grad()
                loss(net, bags, step).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if step % _CHECK_STEPS == 0:
                    now = check(net)
                    best, state, since = (now, copied(net), 0) if now > best else (best, state, since + 1)
        net.load_state_dict(state)
    return net, best


def _only(counts: csr_array, is_kept_E: NDArray[np.bool_]) -> csr_array:
    kept = csr_array((counts.data * is_kept_E, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    kept.eliminate_zeros()
    return kept

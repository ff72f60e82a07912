"""All representations that an evaluation compares, in the order of the results."""

from collections.abc import Sequence
from functools import partial

from userrep.config import AlsVectors, Storage
from userrep.evaluation.representation import Fit
from userrep.evaluation.representations import inputs
from userrep.evaluation.representations.als import fit_refitted, fits_of_one_factorization
from userrep.evaluation.representations.inputs import blocks, embedding
from userrep.evaluation.representations.nmf import fit_nmf
from userrep.store.vector_storage import STORED

PICKS = "picks"  # left out without onboarding picks
REFITTED = "als_refitted"  # left out of new-user tasks: its item factors are fitted on the users' full history


def representations(storages: Sequence[Storage] = ()) -> dict[str, Fit]:
    """Return the fits of all representations by name; the embedding, the one under test, comes first.

    ``storages``: storage types in which the embedding is also evaluated, as ``embedding_int8`` for example.
    """
    settings = AlsVectors(kind="als", dim=80, regularization=0.5, alpha=3, iterations=6)
    fit_static, fit_folded = fits_of_one_factorization(settings)
    fits: dict[str, Fit] = {
        "embedding": embedding(inputs.trained),
        "untrained": embedding(inputs.untrained),
        "principal": embedding(inputs.principal),
        "popularity": inputs.popularity,
        "rfm": blocks(inputs.recent_counts),
        "rfm_history": blocks(inputs.counts),
        PICKS: blocks(inputs.picks),
        "pooled_longest": blocks(inputs.pooled_longest),
        "pooled_all": blocks(inputs.pooled),
        "raw": inputs.raw,
        "pca": inputs.fit_pca,
        "als_static": fit_static,
        "als_folded": fit_folded,
        REFITTED: partial(fit_refitted, settings=settings),
        "nmf": fit_nmf,
    }
    return fits | {f"{STORED}{storage}": embedding(inputs.trained, storage) for storage in storages}

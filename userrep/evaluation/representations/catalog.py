"""All representations that an evaluation compares, in the order of the results."""

from collections.abc import Sequence

from userrep.config import AlsVectors, Storage
from userrep.evaluation.representation import Representation
from userrep.evaluation.representations import inputs
from userrep.evaluation.representations.als import AlsFolded, AlsRefitted, AlsStatic, Factorization
from userrep.evaluation.representations.inputs import Blocks, Embedding, Pca, Popularity, Raw
from userrep.evaluation.representations.nmf import Nmf
from userrep.store.vector_storage import STORED

PICKS = "picks"  # left out without onboarding picks
REFITTED = "als_refitted"  # left out of new-user tasks: its item factors are fitted on the users' full history


def representations(storages: Sequence[Storage] = ()) -> list[Representation]:
    """Return a new, unfitted instance of each; the embedding, the one under test, comes first.

    ``storages``: storage types in which the embedding is also evaluated, as ``embedding_int8`` for example.
    """
    settings = AlsVectors(kind="als", dim=80, regularization=0.5, alpha=3, iterations=6)
    factors = Factorization(settings)
    return [
        Embedding("embedding", inputs.trained),
        Embedding("untrained", inputs.untrained),
        Popularity(),
        Blocks("rfm", inputs.recent_counts),
        Blocks("rfm_history", inputs.counts),
        Blocks(PICKS, inputs.picks),
        Blocks("pooled_longest", inputs.pooled_longest),
        Blocks("pooled_all", inputs.pooled),
        Raw(),
        Pca(),
        AlsStatic(factors),
        AlsFolded(factors),
        AlsRefitted(settings),
        Nmf(),
        *(Embedding(f"{STORED}{storage}", inputs.trained, storage) for storage in storages),
    ]

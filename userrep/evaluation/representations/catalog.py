"""All representations that an evaluation compares, in the order in which results name them."""

from userrep.config import AlsVectors
from userrep.evaluation.representation import Representation
from userrep.evaluation.representations.als import AlsFolded, AlsRefitted, AlsStatic, Factorization
from userrep.evaluation.representations.inputs import (
    Blocks,
    Embedding,
    Nothing,
    Raw,
    Untrained,
    is_count,
    is_pick,
    is_pooled,
    is_pooled_longest,
    is_recent_count,
)
from userrep.evaluation.representations.matrices import Nmf
from userrep.evaluation.representations.reduced import Pca

PICKS = "picks"  # left out where there are none
REFITTED = "als_refitted"  # left out of tasks of new users: its items know all that these did before a date


def representations() -> list[Representation]:
    """Return a new, unfitted one of each; the embedding, which the others are measured against, comes first."""
    settings = AlsVectors(kind="als", dim=80, regularization=0.5, alpha=3, iterations=6)
    factors = Factorization(settings)
    return [
        Embedding(),
        Untrained(),
        Nothing(),
        Blocks("rfm", is_recent_count),
        Blocks("rfm_history", is_count),
        Blocks(PICKS, is_pick),
        Blocks("pooled_longest", is_pooled_longest),
        Blocks("pooled_all", is_pooled),
        Raw(),
        Pca(),
        AlsStatic(factors),
        AlsFolded(factors),
        AlsRefitted(settings),
        Nmf(),
    ]

"""All representations that an evaluation compares, in the order of the results."""

from userrep.config import AlsVectors
from userrep.evaluation.representation import Representation
from userrep.evaluation.representations.als import AlsFolded, AlsRefitted, AlsStatic, Factorization
from userrep.evaluation.representations.inputs import (
    Blocks,
    Embedding,
    Popularity,
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

PICKS = "picks"  # left out without onboarding picks
REFITTED = "als_refitted"  # left out of new-user tasks: its item factors are fitted on the users' full history


def representations() -> list[Representation]:
    """Return a new, unfitted instance of each; the embedding, the one under test, comes first."""
    settings = AlsVectors(kind="als", dim=80, regularization=0.5, alpha=3, iterations=6)
    factors = Factorization(settings)
    return [
        Embedding(),
        Untrained(),
        Popularity(),
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

"""All representations that an evaluation compares, in the order in which results name them."""

from userrep.evaluation.representation import Representation
from userrep.evaluation.representations.inputs import (
    Blocks,
    Embedding,
    Nothing,
    Raw,
    is_count,
    is_pooled,
    is_pooled_longest,
)
from userrep.evaluation.representations.reduced import Pca


def representations() -> list[Representation]:
    """Return a new, unfitted one of each; the embedding, which the others are measured against, comes first."""
    return [
        Embedding(),
        Nothing(),
        Blocks("rfm", is_count),
        Blocks("pooled_longest", is_pooled_longest),
        Blocks("pooled_all", is_pooled),
        Raw(),
        Pca(),
    ]

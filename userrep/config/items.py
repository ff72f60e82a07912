"""The items, and the kinds of their vectors."""

from typing import Annotated, Literal

from pydantic import Field

from userrep.config.log import Source
from userrep.config.values import Days, Section


class ItemColumns(Section):
    """Which of the items' columns mean what."""

    item_id: str
    """The item's id, as in the log."""
    text: str | None = None
    """Its title or description, for vectors of kind `text`."""
    vector: str | None = None
    """A vector of the owner's, an array of numbers, for vectors of kind `vector`."""


class Items(Source):
    """What is known of items."""

    columns: ItemColumns
    """Which of the items' columns mean what."""


class AlsVectors(Section):
    """Implicit-feedback ALS on events before a version's date (Hu, Koren, Volinsky 2008)."""

    kind: Literal["als"]
    dim: int = Field(80, ge=2, le=512)
    """Numbers in a vector."""
    refit_days: Days = 28
    """How long a version is used before the next is fitted."""
    solver: Literal["implicit", "spark"] = "implicit"
    """`implicit`: the library of that name fits a version in one task, in seconds. `spark`: Spark ML on the whole
    cluster, for samples that fit into no task's memory; many times slower, and versions do not start from each
    other."""
    regularization: float = Field(0.5, gt=0)
    """Ridge on the factors, times the mean number of pairs of a user or an item; Spark takes each one's own number."""
    alpha: float = Field(3.0, gt=0)
    """What an event adds to the confidence in a pair."""
    iterations: int = Field(6, ge=1)
    """Rounds of alternating."""
    max_tiles: int = Field(50_000_000, ge=1)
    """Size of the sample of users, those with the lowest hashes, that a version is fitted on: about so many activity
    tiles. With the default solver, 50 million tiles take up to 5 GB of a task's memory."""
    seed: int = 17
    """Random seed of the initial factors."""


class TextVectors(Section):
    """Hashed tf-idf of the item's text and its truncated SVD."""

    kind: Literal["text"]
    dim: int = Field(80, ge=2, le=512)
    """Numbers in a vector."""
    seed: int = 17
    """Random seed of the decomposition."""


class GivenVectors(Section):
    """The owner's own vectors: the column ``items.columns.vector``."""

    kind: Literal["vector"]
    dim: int = Field(ge=1, le=4096)
    """Numbers in each of the owner's vectors; an item whose vector has more or fewer counts as one without."""


ItemVectors = Annotated[AlsVectors | TextVectors | GivenVectors, Field(discriminator="kind")]

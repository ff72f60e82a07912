"""Configuration of the items and of the kinds of item vectors."""

from typing import Annotated, Literal

from pydantic import Field

from userrep.config.log import Source
from userrep.config.values import Attributes, Days, Section


class ItemColumns(Section):
    """Names of the columns of the items table."""

    item_id: str
    """Item id, with the same values as in the event log."""
    text: str | None = None
    """Title or description, the input of item vectors of kind `text`."""
    vector: str | None = None
    """Your own vector, an array of numbers, the input of item vectors of kind `vector`."""


class Items(Source):
    """The items table."""

    columns: ItemColumns
    """Names of the columns of the items table."""
    categories: Attributes = []
    """Columns such as a department or a brand, whose values name segments and explain models. They are not inputs of
    the model."""


class AlsVectors(Section):
    """Implicit-feedback ALS (Hu, Koren, Volinsky 2008), fitted on the events before each version's date."""

    kind: Literal["als"]
    dim: int = Field(80, ge=2, le=512)
    """Dimensions of a vector."""
    refit_days: Days = 28
    """Days between two versions of the vectors."""
    solver: Literal["implicit", "spark"] = "implicit"
    """ALS library. `implicit` fits a version in a single task, in seconds. `spark` runs Spark ML on the whole cluster,
    for samples that do not fit into the memory of one task; it is many times slower and cannot start from the previous
    version."""
    regularization: float = Field(0.5, gt=0)
    """Ridge penalty on the factors. `implicit` scales it by the mean number of pairs per user or item, `spark` by the
    number of pairs of each user and item."""
    alpha: float = Field(3.0, gt=0)
    """Confidence that each event adds to its (user, item) pair."""
    iterations: int = Field(6, ge=1)
    """Number of ALS iterations. A fit by `implicit` that starts from the version before takes a third, at least one."""
    max_tiles: int = Field(50_000_000, ge=1)
    """Approximate largest number of activity tiles to fit on; larger logs are sampled by user, lowest id hashes first.
    With the default solver, 50 million tiles need up to 5 GB of memory in one task."""
    seed: int = Field(17, ge=0, lt=2**31)
    """Random seed for the initial factors."""


class TextVectors(Section):
    """Truncated SVD of the hashed tf-idf of each item's text."""

    kind: Literal["text"]
    dim: int = Field(80, ge=2, le=512)
    """Dimensions of a vector."""
    seed: int = Field(17, ge=0, lt=2**31)
    """Random seed for the SVD."""


class GivenVectors(Section):
    """Your own item vectors, read from the column ``items.columns.vector``."""

    kind: Literal["vector"]
    dim: int = Field(ge=1, le=4096)
    """Dimensions of your vectors; an item whose vector has another length is treated as an item without a vector."""


ItemVectors = Annotated[AlsVectors | TextVectors | GivenVectors, Field(discriminator="kind")]

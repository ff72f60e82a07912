"""The recipe of a training, a part of the id of the space that it makes."""

from datetime import date

from userrep.config import Config
from userrep.ids import short_hash
from userrep.spaces.registry import Space, list_spaces
from userrep.store.tables import Tables


def next_space_id(tables: Tables, config: Config, until: date) -> str:
    """Return the id that a training started now would get: a running number and a hash of the training recipe."""
    number = 1 + len(list_spaces(tables))
    return f"s{number:03d}-{_recipe_hash(config, until)}"


def is_trained_so(space: Space, config: Config, until: date) -> bool:
    """Return whether a space was trained with this model, these training settings and the same ``until`` date."""
    return space.space_id.endswith(f"-{_recipe_hash(config, until)}")


def _recipe_hash(config: Config, until: date) -> str:
    return short_hash([config.model.model_dump(), config.training.recipe, until], 6)

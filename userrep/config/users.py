"""The users, and their first picks."""

from userrep.config.log import Source
from userrep.config.values import Attributes, Section, part_of_name


class UserColumns(Section):
    """Which of the users' columns mean what."""

    user_id: str
    """The user's id, as in the log."""
    registered_at: str | None = None
    """Since when there is the user; without it, since the first event or pick."""


class Users(Source):
    """What is known of users."""

    columns: UserColumns
    """Which of the users' columns mean what."""
    attributes: Attributes = []
    """Columns that are inputs of the model: the 64 most frequent values of each."""

    @property
    def attribute_names(self) -> list[str]:
        """The attributes as parts of column names."""
        return [part_of_name(name) for name in self.attributes]


class OnboardingColumns(Section):
    """Which of the picks' columns mean what."""

    user_id: str
    """The user's id, as in the log."""
    item_id: str
    """The item that was picked."""
    event_at: str
    """When it was picked."""


class Onboarding(Source):
    """New users' first picks."""

    columns: OnboardingColumns
    """Which of the picks' columns mean what."""

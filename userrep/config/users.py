"""Configuration of the users table and of the onboarding picks."""

from typing import Any

from pydantic import model_validator

from userrep.config.log import Source
from userrep.config.values import Attributes, Section, TimeZone, part_of_name, refuse


class UserColumns(Section):
    """Names of the columns of the users table."""

    user_id: str
    """User id, with the same values as in the event log."""
    registered_at: str | None = None
    """Registration time of the user. Without it, the model has no input for the time since registration, and users
    without an event or a pick are in no snapshot."""


class Users(Source):
    """The users table: attributes and registrations."""

    columns: UserColumns
    """Names of the columns of the users table."""
    attributes: Attributes = []
    """Columns that become model inputs; the 64 most frequent values of each are kept. They must not change with a
    user's behavior, because past dates get today's values."""
    protected: Attributes = []
    """Columns that `userrep audience` must not use, such as age: it removes what a linear model can read of them from
    the vectors. They may be among `attributes` or not; other commands ignore this list."""
    time_zone: TimeZone = "UTC"
    """Time zone of registrations that do not include one."""

    @model_validator(mode="after")
    def _no_attribute_twice(self) -> "Users":
        mapped = {name: f"columns.{key}" for key, name in self.columns if name is not None}
        refuse(
            [f"attributes: {name} is already {mapped[name]}. Remove it" for name in self.attributes if name in mapped]
        )
        return self

    @property
    def meaning(self) -> dict[str, Any]:
        """All settings that affect how the rows are interpreted. ``time_zone`` only if it is not the default."""
        unused = {"path", "format", "protected", *(["time_zone"] if self.time_zone == "UTC" else [])}
        return self.model_dump(exclude=unused)

    @property
    def attribute_names(self) -> list[str]:
        """Attributes in the form used in feature column names."""
        return [part_of_name(name) for name in self.attributes]


class OnboardingColumns(Section):
    """Names of the columns of the onboarding picks."""

    user_id: str
    """User id, with the same values as in the event log."""
    item_id: str
    """Id of the picked item."""
    event_at: str
    """Time of the pick."""


class Onboarding(Source):
    """Onboarding picks: the items that new users choose at registration."""

    columns: OnboardingColumns
    """Names of the columns of the onboarding picks."""
    time_zone: TimeZone = "UTC"
    """Time zone of times of picks that do not include one."""

    @property
    def meaning(self) -> dict[str, Any]:
        """All settings that affect how the rows are interpreted. ``time_zone`` only if it is not the default."""
        zone = {} if self.time_zone == "UTC" else {"time_zone": self.time_zone}
        return self.columns.model_dump() | zone

"""Configuration of the event log: one or several sources and their columns."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from userrep.config.values import Duration, Format, Location, Section, Share, TimeZone, distinct, refuse


class Source(Section):
    """A table of yours.

    A column name with a dot, such as ``user.id``, refers to the column of exactly that name or, without one, to field
    ``id`` of the struct ``user``.
    """

    path: Location
    """Folder, file or glob pattern; with format `table`, the name of a table."""
    format: Format = "parquet"
    """Format of the data at `path`; `table` reads a table of the Spark session's catalog."""


class EventColumns(Section):
    """Names of the columns of the event log."""

    user_id: str
    """User id. Numbers are converted to text; rows without a user id are rejected."""
    item_id: str
    """Item id. Numbers are converted to text; rows without an item id are rejected."""
    event_at: str
    """Time of the event: a timestamp, a date, or text such as 2024-05-01T12:00:00Z. Rows without a readable time are
    rejected."""
    event_id: str | None = None
    """Event id for deduplication within a day; of rows with the same id one is kept. Without this column, or with a
    blank id, rows that are equal in all columns are duplicates. These are the columns of the first file by name
    and, without `event_id`, those that only the newest file or the last one by name has; for JSON, the fields in a
    sample."""
    event_type: str | None = None
    """Type of the event. Tiles keep types apart; features sum over them. Rows without a type are rejected. Without
    this column, the type is `events.event_type`, or `event`."""
    weight: str | None = None
    """Weight of the event in averages, such as seconds played; at least 0. Without this column, every weight is 1."""
    context: Annotated[list[str], AfterValidator(distinct)] = []
    """Context columns, such as the device; features count events by their values."""


class Partition(Section):
    """The date column that the log is partitioned by, with values such as ``2024-05-01`` or ``20240501``.

    Rows whose partition does not match the day of their event are rejected. With ``holds: ingestion_date``, a partition
    may be up to ``max_lateness`` later than that day.
    """

    column: str
    """Name of the partition column."""
    holds: Literal["event_date", "ingestion_date"]
    """Meaning of the date: the UTC day of the event, or the day on which the row was ingested."""
    max_lateness: Duration = timedelta(days=3)
    """Longest delay, in whole days, between an event's day and its ingestion date; only with `ingestion_date`."""

    @model_validator(mode="after")
    def _check_lateness(self) -> "Partition":
        if self.holds == "event_date" and "max_lateness" in self.model_fields_set:
            raise ValueError("max_lateness applies only with holds: ingestion_date. Remove it, or change holds")
        return self

    @property
    def late_days(self) -> int:
        """Most days between an event's day and the date of its partition."""
        return self.max_lateness.days if self.holds == "ingestion_date" else 0


class LogSettings(Section):
    """Settings of a log other than its columns."""

    event_type: str | None = Field(None, min_length=1)
    """Event type of all rows, instead of `columns.event_type`."""
    partition: Partition | None = None
    """Meaning of the log's partitions, so that only the needed ones are read."""
    time_zone: TimeZone = "UTC"
    """Time zone of times that do not include one. A date without a time is its 00:00 UTC in any time zone."""


class EventSource(LogSettings, Source):
    """One source of the event log: location, format, columns and settings."""

    columns: EventColumns
    """Names of the columns of this source."""

    @model_validator(mode="after")
    def _one_event_type(self) -> "EventSource":
        refuse(_event_type_faults(self.columns, self.event_type))
        return self

    @property
    def meaning(self) -> dict[str, Any]:
        """All settings that affect how the rows are interpreted.

        Settings at their defaults are left out, so that a new setting does not change the hash of existing logs.
        """
        settings = self.model_dump(include=set(LogSettings.model_fields), exclude_defaults=True)
        return self.columns.model_dump() | settings

    @property
    def reading(self) -> Any:
        """``meaning``, changed where version 0.2.0 has read rows otherwise: dates as midnight of a time zone."""
        return self.meaning if self.time_zone == "UTC" else [self.meaning, "dates are UTC days"]


class Events(LogSettings):
    """The event log: a single source, or several ``sources`` that are combined."""

    path: Location | None = None
    """Location of a single-source log; with `sources`, each source has its own."""
    format: Format = "parquet"
    """Format of a single-source log."""
    columns: EventColumns | None = None
    """Names of the columns of a single-source log."""
    sources: list[EventSource] = []
    """Sources that together form the log, instead of `path`, `format` and `columns`."""
    max_rejected_share: Share = 0.05
    """Largest share of malformed rows in a day; a day above it fails."""
    min_day_share: Share = 0.0
    """Smallest size of a day, as a share of the rows of the log's median day, such as 0.01; a smaller day fails when it
    is built. By default, there is none."""
    require_all_days: bool = False
    """Whether a missing day within the log is an error; by default, it is a warning."""

    @model_validator(mode="after")
    def _one_form(self) -> "Events":
        own = [name for name in EventSource.model_fields if name in self.model_fields_set]
        if self.sources:
            faults = [f"{', '.join(own)} cannot be set next to sources. Set it in each of the sources"] if own else []
        elif self.path is None and self.columns is None:
            faults = ["the log is not configured. Set either path and columns, or sources"]
        elif self.path is None or self.columns is None:
            faults = ["path and columns must be set together"]
        else:
            faults = _event_type_faults(self.columns, self.event_type)
        refuse(faults)
        return self

    @property
    def all_sources(self) -> dict[str, EventSource]:
        """Sources by their key in the configuration; a single-source log is one source named ``events``."""
        if self.sources:
            return {f"events.sources[{k}]": source for k, source in enumerate(self.sources)}
        settings = self.model_dump(include=set(EventSource.model_fields), exclude_unset=True)
        return {"events": EventSource(**settings)}

    @property
    def context(self) -> list[str]:
        """Context columns of all sources; a source without one of these columns has null there."""
        return list(dict.fromkeys(name for source in self.all_sources.values() for name in source.columns.context))

    @property
    def meaning(self) -> Any:
        """All settings that affect how the rows of the log are interpreted, without their location."""
        meanings = [source.meaning for source in self.all_sources.values()]
        return meanings[0] if len(meanings) == 1 else meanings


def _event_type_faults(columns: EventColumns, event_type: str | None) -> list[str]:
    both = event_type is not None and columns.event_type is not None
    return ["event_type and columns.event_type cannot both be set. Remove one"] if both else []

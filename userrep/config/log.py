"""The event log: one or several sources, and what their columns mean."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from userrep.config.values import Duration, Format, Place, Section, Share, TimeZone, distinct, refuse


class Source(Section):
    """A table of the owner's. A column ``user.id`` is the one of that name, else field ``id`` of a struct ``user``."""

    path: Place
    """A folder, a file or a pattern; with format `table` a table's name."""
    format: Format = "parquet"
    """What lies there; `table` is a table of the session's catalog."""


class EventColumns(Section):
    """Which of the log's columns mean what."""

    user_id: str
    """Who. Numbers become text; a row without one is rejected."""
    item_id: str
    """With what. Likewise."""
    event_at: str
    """When: a timestamp, a date, or text such as 2024-05-01T12:00:00Z. A row without a readable one is rejected."""
    event_id: str | None = None
    """Tells copies: of a day's rows with one id, one counts. Without it, of rows that are equal in all columns."""
    event_type: str | None = None
    """What happened; tiles keep types apart, features add them up. A row without one is rejected."""
    weight: str | None = None
    """What an event counts in averages, such as seconds played; 0 or more. Without it every event weighs 1."""
    context: Annotated[list[str], AfterValidator(distinct)] = []
    """Columns that are counted by value, such as the device."""


class Partition(Section):
    """The column that the log is partitioned by: a date, ``2024-05-01`` or ``20240501``.

    Rows that came in before their day, or more than ``max_lateness`` after it, are rejected.
    """

    column: str
    """The column that the log is partitioned by."""
    holds: Literal["event_date", "ingestion_date"]
    """The event's UTC day, or the day on which the row came in."""
    max_lateness: Duration = timedelta(days=3)
    """With `ingestion_date`: how long after its day a row may come in, in whole days."""

    @model_validator(mode="after")
    def _only_what_comes_in_is_late(self) -> "Partition":
        if self.holds == "event_date" and "max_lateness" in self.model_fields_set:
            raise ValueError("max_lateness goes with holds: ingestion_date; leave it out with event_date")
        return self

    @property
    def late_days(self) -> int:
        """How many days after an event's day its partition may lie."""
        return self.max_lateness.days if self.holds == "ingestion_date" else 0


class LogSettings(Section):
    """What may be said of a log besides its columns."""

    event_type: str | None = Field(None, min_length=1)
    """One type for all rows, in the place of `columns.event_type`."""
    partition: Partition | None = None
    """What the log's partitions mean, so that only those are read that are needed."""
    time_zone: TimeZone = "UTC"
    """Of times that carry none."""


class EventSource(LogSettings, Source):
    """One log: where it is, which of its columns mean what, or which one event type all its rows have."""

    columns: EventColumns
    """Which of this log's columns mean what."""

    @model_validator(mode="after")
    def _one_event_type(self) -> "EventSource":
        refuse(_event_type_faults(self.columns, self.event_type))
        return self

    @property
    def meaning(self) -> dict[str, Any]:
        """All that decides what the log's rows mean; settings that are not used leave no trace in it."""
        settings = self.model_dump(include=set(LogSettings.model_fields), exclude_defaults=True)
        return self.columns.model_dump() | settings


class Events(LogSettings):
    """The event log: one, or several ``sources`` as one."""

    path: Place | None = None
    """Of the one log; with `sources`, each has its own."""
    format: Format = "parquet"
    """Of the one log."""
    columns: EventColumns | None = None
    """Of the one log."""
    sources: list[EventSource] = []
    """Several logs that count as one, in the place of `path`, `format` and `columns`."""
    max_rejected_share: Share = 0.05
    """A day with a larger share of malformed rows fails."""
    min_day_share: Share = 0.01
    """A day with less than this share of the rows of the log's median day fails when it is built."""
    require_all_days: bool = False
    """Refuse a log that lacks a day within it; else that is told."""

    @model_validator(mode="after")
    def _one_form(self) -> "Events":
        own = [name for name in EventSource.model_fields if name in self.model_fields_set]
        if self.sources:
            faults = [f"{', '.join(own)} beside sources: write it into each of the sources"] if own else []
        elif self.path is None and self.columns is None:
            faults = ["say where the log is: either path and columns, or sources"]
        elif self.path is None or self.columns is None:
            faults = ["path and columns go together"]
        else:
            faults = _event_type_faults(self.columns, self.event_type)
        refuse(faults)
        return self

    @property
    def all_sources(self) -> dict[str, EventSource]:
        """The logs by their place in the configuration, whichever way they are written."""
        if self.sources:
            return {f"events.sources[{k}]": source for k, source in enumerate(self.sources)}
        settings = self.model_dump(include=set(EventSource.model_fields), exclude_unset=True)
        return {"events": EventSource(**settings)}

    @property
    def context(self) -> list[str]:
        """The context columns of all sources; a source without one of them has no value for it."""
        return list(dict.fromkeys(name for source in self.all_sources.values() for name in source.columns.context))

    @property
    def meaning(self) -> Any:
        """All that decides what the rows of the log mean, wherever they lie."""
        meanings = [source.meaning for source in self.all_sources.values()]
        return meanings[0] if len(meanings) == 1 else meanings


def _event_type_faults(columns: EventColumns, event_type: str | None) -> list[str]:
    both = event_type is not None and columns.event_type is not None
    return ["event_type and columns.event_type exclude each other; keep one"] if both else []

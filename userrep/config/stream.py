"""Near real time: where events arrive, and where vectors go."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from userrep.config.values import Duration, Name, Place, Section, refuse


class StreamSource(Section):
    """Where events come from: a topic of Kafka with JSON values, or a folder of files or a Delta table that grows.

    Columns are those of the source of the same name in the batch, mapped as there.
    """

    topic: str | None = Field(None, min_length=1)
    """A topic of Kafka; its messages are JSON."""
    path: Place | None = None
    """A folder of files or a Delta table, which grows."""
    format: Literal["parquet", "delta", "json", "csv"] = "parquet"
    """Of the path."""

    @model_validator(mode="after")
    def _one_place(self) -> "StreamSource":
        refuse(["name a topic, or a path, and not both"] if (self.topic is None) == (self.path is None) else [])
        return self


class Kafka(Section):
    """The broker of the stream's topics."""

    bootstrap_servers: str = Field(min_length=1)
    """Hosts and ports, with commas between."""
    options: dict[str, str] = {}
    """Kafka's own, without the prefix `kafka.`; `${NAME}` in a value is a variable of the environment, for secrets."""


class Redis(Section):
    """The online store, where the newest vector of each user is."""

    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")]
    """`redis://`, `rediss://` or `unix://`; `${NAME}` in it is a variable of the environment."""
    expires_after: Duration = timedelta(days=3)
    """How long a vector stays that no event has renewed; the snapshots have newer ones by then."""


class Stream(Section):
    """Near real time (``userrep stream``)."""

    query_id: Name = "stream"
    """Names the stream: its checkpoint in `root/streams`, its rows in `embedding_updates`."""
    events: StreamSource | None = None
    """Where events arrive; without it, new files of the log."""
    onboarding: StreamSource | None = None
    """Where picks arrive, with the columns of the section `onboarding`."""
    users: StreamSource | None = None
    """Where registrations and attributes arrive, with the columns of the section `users`."""
    kafka: Kafka | None = None
    """The broker, for topics."""
    redis: Redis | None = None
    """The online store."""
    trigger: Duration = timedelta(seconds=2)
    """How often a micro-batch begins, if the one before is done."""
    max_rows_per_batch: int = Field(20_000, ge=1)
    """Of messages; what waits beyond that waits in Kafka."""
    max_files_per_batch: int = Field(16, ge=1)
    """Of files."""
    open_days: int = Field(3, ge=2, le=7)
    """Days, the last included, that the stream holds itself: their late events count at once, and openings are made a
    day less ahead."""
    late: Duration = timedelta(hours=6)
    """How long after its close a day is still corrected."""

    @property
    def sources(self) -> dict[str, StreamSource]:
        """The sources that are named, by what they bring."""
        named = {"events": self.events, "onboarding": self.onboarding, "users": self.users}
        return {what: source for what, source in named.items() if source is not None}

    @model_validator(mode="after")
    def _broker_is_named(self) -> "Stream":
        topics = [what for what, source in self.sources.items() if source.topic is not None]
        refuse([f"{topics[0]}.topic needs kafka.bootstrap_servers"] if topics and self.kafka is None else [])
        return self

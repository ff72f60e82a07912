"""Configuration of near-real-time updates: the sources of events and the online store."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from userrep.config.values import Duration, Location, Name, PositiveDuration, Section, refuse


class StreamSource(Section):
    """A source of streamed records: a Kafka topic with JSON values, a growing folder of files or a Delta table.

    Records have the columns of the batch section of the same name and use its column mapping.
    """

    topic: str | None = Field(None, min_length=1)
    """Kafka topic with JSON messages."""
    path: Location | None = None
    """Folder that receives new files, or a Delta table that receives new rows."""
    format: Literal["parquet", "delta", "json", "csv"] = "parquet"
    """Format of the data at `path`."""

    @model_validator(mode="after")
    def _check_source(self) -> "StreamSource":
        refuse(["set exactly one of topic and path"] if (self.topic is None) == (self.path is None) else [])
        return self


class Kafka(Section):
    """The Kafka brokers of the stream's topics."""

    bootstrap_servers: str = Field(min_length=1)
    """Comma-separated `host:port` pairs."""
    options: dict[str, str] = {}
    """Kafka client options, without the prefix `kafka.`; `${NAME}` in a value refers to an environment variable, for
    secrets."""


class Redis(Section):
    """The online store, which keeps the newest embedding of each user."""

    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")]
    """URL with scheme `redis://`, `rediss://` or `unix://`; `${NAME}` refers to an environment variable."""
    expires_after: PositiveDuration = timedelta(days=3)
    """Time after which an embedding that no event has updated expires; snapshots contain newer ones by then."""


class Stream(Section):
    """Near-real-time updates (``userrep stream``)."""

    query_id: Name = "stream"
    """Name of the stream, which identifies its checkpoint in `root/streams` and its rows in `embedding_updates`."""
    events: StreamSource | None = None
    """Source of events; by default, new files of the event log."""
    onboarding: StreamSource | None = None
    """Source of onboarding picks, with the columns of the section `onboarding`."""
    users: StreamSource | None = None
    """Source of registrations and attributes, with the columns of the section `users`."""
    kafka: Kafka | None = None
    """Kafka brokers; required for topics."""
    redis: Redis | None = None
    """Online store; by default, embeddings are written only to `embedding_updates`."""
    trigger: Duration = timedelta(seconds=2)
    """Time between the starts of micro-batches; a batch that takes longer delays the next one."""
    max_rows_per_batch: int = Field(20_000, ge=1)
    """Largest number of Kafka messages per micro-batch; the rest waits in Kafka."""
    max_files_per_batch: int = Field(16, ge=1)
    """Largest number of new files per micro-batch."""
    open_days: int = Field(3, ge=2, le=7)
    """Number of days, including today, whose events the stream keeps. An event of one of these days changes the vectors
    of all as-of dates that are still open. `userrep daily` prepares the stream base of the next `open_days` - 1 as-of
    dates."""
    late: Duration = timedelta(hours=6)
    """Time after 00:00 UTC of an as-of date during which late events still change the streamed vectors of that date."""

    @property
    def sources(self) -> dict[str, StreamSource]:
        """Configured sources by name: events, onboarding or users."""
        sources = {"events": self.events, "onboarding": self.onboarding, "users": self.users}
        return {name: source for name, source in sources.items() if source is not None}

    @model_validator(mode="after")
    def _check_brokers(self) -> "Stream":
        topics = [name for name, source in self.sources.items() if source.topic is not None]
        refuse([f"{topics[0]}.topic needs kafka.bootstrap_servers"] if topics and self.kafka is None else [])
        return self

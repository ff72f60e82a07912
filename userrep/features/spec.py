"""The columns of a row of user features and their order. Pure Python, because trainers import it too."""

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from userrep.config import Config

PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")  # UTC hours 0-5, 6-11, 12-17, 18-23
NUM_WEEKDAYS = 7  # ISO: Monday first
POOLED = "pooled"  # the stored column with all pooled vectors, packed: list columns take five times as long to read


class PooledBlock(NamedTuple):
    """Mean item vector of one modality over one window, or over the onboarding picks if there is no window."""

    modality: str
    window_days: int | None
    dim: int

    @property
    def column(self) -> str:
        return f"{self.modality}_{self.window_days}d" if self.window_days else f"{self.modality}_onboarding"

    @property
    def flag(self) -> str:
        return f"has_{self.column}"


def counts_of(window_days: int) -> list[str]:
    """Return the names of the count columns of a window."""
    return [f"{count}_{window_days}d" for count in ("num_events", "weight", "num_active_days")]


def content_modality(config: Config) -> str | None:
    """Return the first modality that describes items by their content, not by who bought them; None without one."""
    return next((name for name, vectors in config.item_vectors.items() if vectors.kind != "als"), None)


class FeatureSpec(BaseModel):
    """The settings that determine the columns of ``user_features`` and their meaning.

    ``windows_days`` are ascending; a window of w days at as-of date D is ``[D-w, D)`` in UTC days. ``history_days``: an
    optional longer window for counts and item vectors only; it does not decide which users are active. ``modalities``
    maps each modality to the width of its item vectors.
    """

    model_config = ConfigDict(frozen=True)

    windows_days: list[int]
    history_days: int | None = None
    modalities: dict[str, int]
    onboarding: bool
    registered_at: bool
    attributes: list[str]
    context: list[str]

    @classmethod
    def of(cls, config: Config) -> "FeatureSpec":
        return cls(
            windows_days=config.windows_days,
            history_days=config.history_window,
            modalities={name: vectors.dim for name, vectors in sorted(config.item_vectors.items())},
            onboarding=config.onboarding is not None,
            registered_at=config.users is not None and config.users.columns.registered_at is not None,
            attributes=config.users.attribute_names if config.users else [],
            context=config.events.context,
        )

    @property
    def longest(self) -> int:
        """The longest window in days, without the history. A user without an event in it is inactive."""
        return self.windows_days[-1]

    @property
    def windows(self) -> list[int]:
        """All windows with sums, ascending, in days; the history window is last."""
        return [*self.windows_days, *([self.history_days] if self.history_days else [])]

    @property
    def span(self) -> int:
        """Number of days before the as-of date that tiles are read from: the longest of all windows."""
        return self.windows[-1]

    @property
    def pooled(self) -> list[PooledBlock]:
        """The pooled blocks: for each modality its windows, then its onboarding picks."""
        windows: list[int | None] = [*self.windows, *([None] if self.onboarding else [])]
        return [PooledBlock(m, w, dim) for m, dim in self.modalities.items() for w in windows]

    @property
    def scalars(self) -> list[str]:
        """The single-number columns available to a model; null if unknown."""
        per_window = [name for window_days in self.windows for name in counts_of(window_days)]
        dates = ["days_since_last_event", "days_since_first_event"]
        registered = ["days_since_registration"] if self.registered_at else []
        return [*per_window, *dates, *registered]

    @property
    def flagged_scalars(self) -> list[str]:
        """The scalars that can be unknown and therefore get a presence flag."""
        return [name for name in self.scalars if name.startswith("days_since_")]

    @property
    def shares(self) -> dict[str, int]:
        """Columns with shares of the events of the longest window, and their widths."""
        return {f"part_of_day_{self.longest}d": len(PARTS_OF_DAY), f"weekday_{self.longest}d": NUM_WEEKDAYS}

    @property
    def context_column(self) -> str | None:
        """Column with the events of the longest window by ``column=value`` of the owner's context columns."""
        return f"num_by_context_{self.longest}d" if self.context else None

    @property
    def pooled_width(self) -> int:
        """Total width of the vectors of all pooled blocks."""
        return sum(block.dim for block in self.pooled)

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield (name, SQL type) of every feature column in order, without the leading as_of and user_id."""
        for block in self.pooled:
            yield block.column, "ARRAY<FLOAT>"
            yield block.flag, "BOOLEAN"
        for scalar in self.scalars:
            yield scalar, "BIGINT" if scalar.startswith("num_") else "DOUBLE"
        for shares in self.shares:
            yield shares, "ARRAY<FLOAT>"
        if self.context_column:
            yield self.context_column, "MAP<STRING,BIGINT>"
        for attribute in self.attributes:
            yield f"attribute_{attribute}", "STRING"
        yield "is_exact", "BOOLEAN"

    def stored_columns(self) -> Iterator[tuple[str, str]]:
        """Yield (name, SQL type) of every stored column: one packed column ``pooled`` replaces the pooled vectors."""
        lists = {block.column for block in self.pooled}
        yield POOLED, "BINARY"
        yield from ((name, kind) for name, kind in self.columns() if name not in lists)

    def ddl(self) -> str:
        """Return the stored columns as DDL."""
        return ", ".join(f"`{name}` {kind}" for name, kind in self.stored_columns())

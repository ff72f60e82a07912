"""Which dates a run is about: as-of dates of training, of snapshots and of labels, and the item vectors they need."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from userrep.config import Config
from userrep.errors import UsageError
from userrep.examples.return_propensity import LabelDates, label_dates
from userrep.items.versions import Versions, lineage_of, versions_of
from userrep.spaces.registry import CANDIDATE, RETIRED, SERVING, Space, read_registry
from userrep.spaces.registry_value import Registry
from userrep.spaces.snapshots import PUBLISHED, REFUSED, list_snapshots
from userrep.store.tables import Tables
from userrep.tiles.inventory.inventory import Inventory

_MIN_HISTORY = timedelta(days=14)  # of the log, before the first item vectors that training rows may use


@dataclass(frozen=True)
class Schedule:
    """The dates of a run for ``as_of``, over what the log holds and what spaces there are."""

    config: Config
    tables: Tables
    inventory: Inventory
    as_of: date

    @cached_property
    def registry(self) -> Registry:
        """Spaces and consumers as they were when the run first looked: no later stage looks again."""
        return read_registry(self.tables)

    @cached_property
    def lineage_id(self) -> str:
        """The lineage of item vectors that the configuration makes."""
        return lineage_of(self.config)

    @property
    def until(self) -> date:
        """The date that training must not see past; 28 days before the as-of date where none is configured.

        Raises
        ------
        UsageError
            If it lies after the as-of date.
        """
        until = self.config.training.as_ofs.until or self.as_of - timedelta(days=28)
        if until > self.as_of:
            raise UsageError(
                f"training.as_ofs.until {until} lies after --as-of {self.as_of}; no space could be trained. "
                "Choose a later --as-of or an earlier training.as_ofs.until."
            )
        return until

    @cached_property
    def usable_space(self) -> Space | None:
        """The space to go on with: of this lineage the serving one, else the newest. None: one has to be trained."""
        of_lineage = [space for space in self.registry.spaces if space.lineage_id == self.lineage_id]
        alive = [space for space in of_lineage if space.state != RETIRED]
        return next((s for s in alive if s.state == SERVING), alive[-1] if alive else None)

    def space_to_use(self) -> Space:
        """The space that jobs after training work on. Raises UsageError where there is none."""
        if self.usable_space is None:
            raise UsageError("no space to work with: `userrep pipeline` or `userrep run train_autoencoder` trains one.")
        return self.usable_space

    def unfinished_candidate(self) -> Space | None:
        """The newest space, if an earlier run was cut off between its training and its first snapshot."""
        newest = next(iter(reversed(self.registry.spaces)), None)
        if newest is None or newest.state != CANDIDATE or newest.lineage_id != self.lineage_id:
            return None
        tried = list_snapshots(self.tables, newest.space_id, states=(PUBLISHED, REFUSED))
        return None if tried else newest

    @property
    def versions(self) -> Versions:
        """The versions of the item vectors that are there, and the grid for those that are not."""
        space = self.usable_space
        return versions_of(self.tables, self.config, anchor=space.trained_until if space else self.until)

    @cached_property
    def training_as_ofs(self) -> list[date]:
        """Every ``every_days`` back from the last date whose futures end by ``until``.

        They go as far as item vectors have events to learn from.

        Raises
        ------
        UsageError
            If the log begins too late for even one.
        """
        settings, first, until = self.config.training.as_ofs, self.inventory.first_day, self.until
        future = timedelta(days=max(self.config.future_days, default=0))
        grid = [until - future - timedelta(days=settings.every_days * k) for k in range(settings.max_dates)]
        versions = self.versions
        dates = sorted(day for day in grid if versions.valid_at(day) >= first + _MIN_HISTORY)
        if not dates:
            raise UsageError(
                f"training.as_ofs.until {until}: the log begins on {first}, too late for a training row; "
                f"choose a date at or after {first + _MIN_HISTORY + timedelta(days=self.config.refit_days) + future}."
            )
        return dates

    def label_dates(self, space: Space | None) -> LabelDates:
        """The dates that the example consumer is trained and tested on, given the space or the one to be trained."""
        return label_dates(
            as_of=self.as_of,
            until=space.trained_until if space else self.until,
            first=self.inventory.first_day + _MIN_HISTORY,
            horizon_days=self.config.downstream.horizon_days,
            num_dates=self.config.downstream.num_dates,
        )

    def snapshot_dates(self, space: Space | None) -> list[date]:
        """The dates that need a snapshot: the as-of date, and those of the example consumer's labels.

        Of a space beside the one that serves, those of the latter too: its consumers find the same history there, and
        what both have is what they are compared by.
        """
        dates = {self.as_of, *self.label_dates(space).all}
        serving = self.registry.serving
        if serving is not None and serving.lineage_id == self.lineage_id:
            is_beside = space is None or space.space_id != serving.space_id
            published = list_snapshots(self.tables, serving.space_id) if is_beside else []
            dates |= {snapshot.as_of for snapshot in published if snapshot.as_of <= self.as_of}
        return sorted(dates)

    def feature_dates(self, *, retrain: bool = False) -> list[date]:
        """The dates that need features: those of snapshots, and where a space is to be trained those of training."""
        space = None if retrain else self.usable_space
        return sorted({*self.snapshot_dates(space), *(self._dates_trained_on() if space is None else [])})

    def _dates_trained_on(self) -> set[date]:
        """The dates of training, and those on which their futures end.

        Futures of a multiple of ``every_days`` end on other dates of training, but for the last.
        """
        ahead = (0, *self.config.future_days)
        return {day + timedelta(days=days) for day in self.training_as_ofs for days in ahead}

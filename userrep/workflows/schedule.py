"""The schedule of a run: its as-of dates for training and snapshots, and the space it works on."""

import logging
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from userrep.config import Config
from userrep.config.training import DEFAULT_ROOM
from userrep.errors import UsageError
from userrep.evaluation.dates import CheckPlan, plan_check
from userrep.features.ledger import feature_sets, sample_of, with_futures
from userrep.features.sums.stream_base import stream_bases
from userrep.items.versions import Versions, lineage_of, versions_of
from userrep.spaces.registry import CANDIDATE, RETIRED, SERVING, Space, is_trained_so, read_registry
from userrep.spaces.registry_state import Registry
from userrep.spaces.snapshots import REFUSED, list_snapshots
from userrep.store.tables import Tables
from userrep.tiles.inventory.inventory import Inventory
from userrep.workflows.log_fit import MIN_HISTORY, training_dates

logger = logging.getLogger(__name__)


def dates_between(first: date, last: date, every_days: int) -> list[date]:
    """Return every ``every_days``-th date from ``first`` to ``last``, both inclusive.

    Raises
    ------
    UsageError
        If ``every_days`` is below 1, or ``first`` is after ``last``.
    """
    if every_days < 1:
        raise UsageError(f"--every: must be at least 1 day, got {every_days}.")
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}. Swap them.")
    return [first + timedelta(days=k) for k in range(0, (last - first).days + 1, every_days)]


@dataclass(frozen=True)
class Schedule:
    """The dates of a run for ``as_of``, derived from the log inventory and the registry.

    ``training_due``: the date that the default end of training is counted from, instead of ``as_of``.
    """

    config: Config
    tables: Tables
    inventory: Inventory
    as_of: date
    training_due: date | None = None

    def check(self) -> None:
        """Check the as-of date against the log.

        Raises
        ------
        UsageError
            If it is outside the log, or the log is too short for it.
        LogIncompleteError
            If the log does not reach it yet, by at most ``freshness.retry_within``.
        """
        self.inventory.check_as_of(self.as_of, retry_within=self.config.freshness.retry_within)
        self.inventory.check_window(self.as_of, self.config.windows_days[-1])

    @cached_property
    def registry(self) -> Registry:
        """The spaces and consumers, read once so that all stages of the run see the same."""
        return read_registry(self.tables)

    @cached_property
    def lineage_id(self) -> str:
        """The lineage of the configuration's item vectors."""
        return lineage_of(self.config)

    @cached_property
    def has_stream(self) -> bool:
        """Whether a stream is configured or has run, so that stream bases of the next dates are needed."""
        return self.config.stream is not None or bool(stream_bases(self.tables, self.lineage_id))

    @property
    def until(self) -> date:
        """The end of the data that training may see, exclusive. Default: 28 days before ``training_due`` or ``as_of``.

        Raises
        ------
        UsageError
            If it is after the as-of date.
        """
        until = self.config.training.as_ofs.until or (self.training_due or self.as_of) - DEFAULT_ROOM
        if until > self.as_of:
            raise UsageError(
                f"training.as_ofs.until {until} is after --as-of {self.as_of}, so no space can be trained. "
                "Choose a later --as-of or an earlier training.as_ofs.until."
            )
        return until

    @cached_property
    def usable_space(self) -> Space | None:
        """The serving space if it has this lineage, else the newest unretired space of this lineage, else None."""
        unretired = [s for s in self.registry.spaces if s.lineage_id == self.lineage_id and s.state != RETIRED]
        return next((s for s in unretired if s.state == SERVING), unretired[-1] if unretired else None)

    def space_to_use(self) -> Space:
        """Return ``usable_space``.

        Raises
        ------
        UsageError
            If there is none.
        """
        if self.usable_space is None:
            raise UsageError("no usable space. Run `userrep pipeline --as-of DATE` to train one.")
        return self.usable_space

    @cached_property
    def spaces_to_refresh(self) -> list[Space]:
        """The spaces in use that have this lineage, the serving one first, or else ``space_to_use``.

        Spaces of other lineages are reported.
        """
        spaces = []
        for space_id, why in self.registry.spaces_in_use().items():
            space = self.registry.space(space_id)
            if space.lineage_id == self.lineage_id:
                spaces.append(space)
            else:
                logger.warning(
                    f"space {space_id} ({why}) is not refreshed: it uses item vectors {space.lineage_id}, this "
                    f"configuration {self.lineage_id}; also run `userrep daily` with the configuration it was trained "
                    "with"
                )
        return spaces or [self.space_to_use()]

    def unfinished_candidate(self) -> Space | None:
        """Return the newest space if it is a candidate of this lineage, unless a gate has refused a snapshot of it."""
        newest = next(iter(reversed(self.registry.spaces)), None)
        if newest is None or newest.state != CANDIDATE or newest.lineage_id != self.lineage_id:
            return None
        return None if list_snapshots(self.tables, newest.space_id, states=(REFUSED,)) else newest

    def space_of_pipeline(self, *, retrain: bool) -> Space | None:
        """Return the space that a pipeline embeds users with, or None if it trains a space first.

        With ``retrain``, this is the ``unfinished_candidate`` if it was trained with these settings.
        """
        if not retrain:
            return self.usable_space
        candidate = self.unfinished_candidate()
        is_same = candidate is not None and is_trained_so(candidate, self.config, candidate.trained_until)
        return candidate if is_same else None

    @property
    def versions(self) -> Versions:
        """The built versions of the item vectors, and the grid of dates for new ones."""
        space = self.usable_space
        return versions_of(self.tables, self.config, anchor=space.trained_until if space else self.until)

    @cached_property
    def _check_as_ofs(self) -> list[date]:
        """The dates that a self-check may train on, ascending; the last ones are the ``training_as_ofs``."""
        first, anchor = self.inventory.first_day, self.versions.anchor
        most = self.config.training.as_ofs.max_check_dates
        return training_dates(self.config, first=first, until=self.until, anchor=anchor, most=most)

    @property
    def training_as_ofs(self) -> list[date]:
        """The training dates, ascending; those of ``training_dates``. Raises UsageError if there are none."""
        return self._check_as_ofs[-self.config.training.as_ofs.max_dates :]

    @cached_property
    def check_plan(self) -> CheckPlan | None:
        """The dates of the self-check; None if it is switched off or the log is too short.

        The checked model has at least half as many training dates as the space, some of them earlier.
        """
        if not self.config.quality.self_check:
            return None
        return plan_check(
            self._check_as_ofs,
            num_own=len(self.training_as_ofs),
            until=self.until,
            future_days=self.config.longest_future,
            every_days=self.config.training.as_ofs.every_days,
            horizons=self.config.evaluation.horizons_days,
        )

    @cached_property
    def training_feature_dates(self) -> set[date]:
        """The dates that a training and its self-check need features of, including the ends of their futures."""
        check = self.check_plan
        as_ofs, judged = (check.as_ofs, check.plan.dates) if check else ([], ())
        return with_futures([*self.training_as_ofs, *as_ofs], self.config.future_days) | {*judged}

    def history_dates(self, space: Space | None) -> list[date]:
        """Return the past dates that need a snapshot, so that consumers have vectors for their first training labels.

        ``space`` None: of the space to be trained. These are the last ``snapshots.history_dates`` of weekly dates from
        the end of its training to a week before the as-of date; earlier dates are in-sample.
        """
        until, first = space.trained_until if space else self.until, self.inventory.first_day + MIN_HISTORY
        weeks = [until + timedelta(weeks=k) for k in range((self.as_of - until) // timedelta(weeks=1))]
        longest = self.config.windows_days[-1]
        dates = [day for day in weeks if day >= first and self.inventory.has_events(day, longest)]
        return dates[max(0, len(dates) - self.config.snapshots.history_dates) :]

    def snapshot_dates(self, space: Space | None) -> list[date]:
        """Return the dates that need a snapshot, ascending. ``space`` None: of the space to be trained.

        These are the as-of date and the ``history_dates``. A space that is not serving also needs the published dates
        of the serving space: consumers that move find the same history, and the two spaces can be compared.
        """
        dates = {self.as_of, *self.history_dates(space)}
        serving = self.registry.serving
        if serving is not None and serving.lineage_id == self.lineage_id:
            is_other = space is None or space.space_id != serving.space_id
            published = list_snapshots(self.tables, serving.space_id) if is_other else []
            dates |= {snapshot.as_of for snapshot in published if snapshot.as_of <= self.as_of}
        return sorted(dates)

    def sampled_dates(self, space: Space | None) -> list[date]:
        """Return the dates for which the features of a sample of the users are enough, ascending.

        They are trained on and need no snapshot, and features of all users were never built. ``space``: as in
        ``feature_dates``.
        """
        if space is not None:
            return []
        built = feature_sets(self.tables, self.lineage_id)
        return sorted(self.training_feature_dates - {*self.snapshot_dates(None)} - built.keys())

    @property
    def num_sampled_buckets(self) -> int:
        """The number of user buckets whose features a training needs at ``sampled_dates``; all on most logs.

        It follows from the users of the newest features up to the as-of date; all buckets if there are none.
        """
        sets = feature_sets(self.tables, self.lineage_id)
        newest = max((day for day in sets if day <= self.as_of), default=None)
        dates = [sets[newest]] * len(self.training_as_ofs) if newest else []
        return sample_of(dates, max_rows=self.config.training.max_rows)

    def feature_dates(self, space: Space | None) -> list[date]:
        """Return the dates that need features, ascending. ``space`` None: with those to train a space.

        These are the snapshot dates and, if a space is trained, the ``training_feature_dates``. If a future is a
        multiple of ``every_days``, most of its ends are training dates, too.
        """
        return sorted({*self.snapshot_dates(space)} | (self.training_feature_dates if space is None else set()))

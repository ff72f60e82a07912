"""Simulation behind generated logs: tastes that drift, users who return or churn.

Uses NumPy only. Every random number is a hash of the seed, the thing it belongs to, and its purpose (draws.py). Users
are simulated in blocks whose size depends only on the specification, so the results of a block are the same to the bit
in any task.

Days are numbered from the log's first day (0); times are milliseconds since the start of that day. Shapes: U users, D
days, J knots, K tastes.
"""

from functools import cached_property
from typing import Any

import numpy as np

from userrep.synthetic.catalog import Catalog, Flags
from userrep.synthetic.draws import Floats, Ints, Keys, drawn, keys_of, normal, uniform
from userrep.synthetic.log_spec import SECOND_SESSION_SHARE, LogSpec

DAY_MS = 86_400_000

_SESSION_MS = 3 * 3_600_000  # the longest session
_SESSION_EVENTS = 60
_RECENCY_PULL = 2.2  # log-odds of a visit that a visit on the previous day adds ...
_RECENCY_DAYS = 5.0  # ... fading with this time constant
_ODDS_SPREAD = 1.0  # standard deviation of the log-odds over users
_TASTE_PULL = 2.5  # half the difference in log-odds of a visit between the most and the least loyal taste
_DRIFT_DAYS = 30  # days between the knots that tastes are interpolated between
_STAPLES = 16  # items that a user repeats, the first ones most often
_FADING_DAYS = 30  # days before leaving for good over which visits become rarer ...
_FADING = 4.0  # ... and the log-odds of a visit lost by the end of them


def _chance(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)))


def _recency_odds(gap: Floats) -> Floats:
    return np.asarray(_RECENCY_PULL * np.exp((1 - gap) / _RECENCY_DAYS))


def _base_odds(share: float) -> float:
    """Return the log-odds at which users are active on ``share`` of their days, averaged over tastes.

    Visits are a renewal process: a user's share of active days is one over the mean gap, which follows from the chance
    of a visit after each gap. Solved by bisection.
    """
    differences = _ODDS_SPREAD * np.linspace(-2.5, 2.5, 11)
    density = np.exp(-0.5 * (differences / _ODDS_SPREAD) ** 2)
    low, high = -20.0, 10.0
    for _ in range(40):
        base = (low + high) / 2
        chance = _chance(base + differences[:, None] + _recency_odds(np.arange(1.0, 200.0)))
        survival = np.cumprod(1 - chance, axis=1)
        mean_gap = 1 + survival[:, :-1].sum(axis=1) + survival[:, -1] / chance[:, -1]
        low, high = (base, high) if (density / mean_gap).sum() < share * density.sum() else (low, base)
    return base


class Population:
    """A set of users (arrays in the order of ``numbers``), simulated over all days of the log.

    ``registered_ms``: int64, U; negative for users registered before the log began. ``tastes``: U x D x K shares that
    sum to one, a random walk around the user's own center.
    """

    def __init__(self, spec: LogSpec, numbers: Ints) -> None:
        self.spec, self.numbers = spec, numbers
        self.keys = keys_of(spec.seed, 2, numbers)
        self.is_heavy = (numbers == 0) & spec.has_heavy_user
        joins = (uniform(self.keys, "joins") < 0.3) & ~self.is_heavy
        when = uniform(self.keys, "registered")
        self.registered_day = np.floor(np.where(joins, when * spec.num_days, -1 - when * 365)).astype(np.int64)
        clock = (uniform(self.keys, "registered clock") * 20 * 3_600_000).astype(np.int64)
        self.registered_ms = self.registered_day * DAY_MS + clock

        taste_keys = keys_of(spec.seed, 3, np.arange(spec.num_tastes))
        self._pull = np.linspace(-_TASTE_PULL, _TASTE_PULL, spec.num_tastes)[np.argsort(uniform(taste_keys, "pull"))]
        noise = uniform(keys_of(taste_keys[:, None], np.arange(spec.num_genres)), "genre")
        home = np.arange(spec.num_genres) % spec.num_tastes == np.arange(spec.num_tastes)[:, None]
        self._genres_by_taste = 0.8 * home / home.sum(axis=1, keepdims=True)
        self._genres_by_taste += 0.2 * noise / noise.sum(axis=1, keepdims=True)

    @cached_property
    def tastes(self) -> Floats:
        num_tastes, num_days = self.spec.num_tastes, self.spec.num_days
        knots = np.arange(-(-num_days // _DRIFT_DAYS) + 1)
        steps_UJK = 1.8 * normal(keys_of(self.keys[:, None, None], knots[:, None], np.arange(num_tastes)), "taste")
        memory = self.spec.taste_memory
        for j in knots[1:]:
            steps_UJK[:, j] = memory * steps_UJK[:, j - 1] + np.sqrt(1 - memory**2) * steps_UJK[:, j]
        position, fraction = np.divmod(np.arange(num_days) / _DRIFT_DAYS, 1)
        knot = position.astype(np.int64)
        logits_UDK = steps_UJK[:, knot] * (1 - fraction)[:, None] + steps_UJK[:, knot + 1] * fraction[:, None]
        weights_UDK = np.exp(logits_UDK + np.linspace(0.5, -0.5, num_tastes))
        return np.asarray(weights_UDK / weights_UDK.sum(axis=2, keepdims=True))

    def taste_on(self, rows: Ints, days: Ints) -> Floats:
        """Return the tastes of users (by row) on days; before the log, those of its first day."""
        return np.asarray(self.tastes[rows, np.maximum(days, 0)])

    def drawn_items(self, shares: Floats, catalog: Catalog, keys: Keys, days: Ints) -> tuple[Ints, Floats]:
        """Draw a taste by its share, then a genre, then an item per key; return the items and the tastes' shares."""
        tastes = drawn(shares, uniform(keys, "taste"))
        genres = drawn(self._genres_by_taste[tastes], uniform(keys, "genre"))
        return catalog.drawn_items(keys, genres, days), shares[np.arange(len(keys)), tastes]

    def chosen_items(self, catalog: Catalog, keys: Keys, rows: Ints, days: Ints) -> tuple[Ints, Floats]:
        """Draw an item per event: one of the user's staples, or one as ``drawn_items`` does.

        A staple is drawn by the taste at registration, always with the same random numbers. So it stays the same item
        until that item is no longer sold, or until an item that precedes it in the draw starts being sold.
        """
        repeats = uniform(keys, "repeats") < self.spec.repeat_share
        number = (_STAPLES * uniform(keys, "staple") ** 2).astype(np.int64)
        staple_keys = keys_of(self.keys[rows], 6, 6, number)
        shares = self.taste_on(rows, np.where(repeats, self.registered_day[rows], days))
        return self.drawn_items(shares, catalog, np.where(repeats, staple_keys, keys), days)

    @cached_property
    def _own_odds(self) -> Floats:
        """Each user's constant log-odds: those of the specified number of visits, plus an own deviation."""
        share = self.spec.events_per_user_day / (self.spec.events_per_session * (1 + SECOND_SESSION_SHARE))
        return _base_odds(share) + 0.4 * normal(self.keys, "odds")

    @cached_property
    def _leaving_day(self) -> Floats:
        """Day on which each user leaves for good; infinite for users who stay."""
        day = np.maximum(self.registered_day, 0) + uniform(self.keys, "leaving day") * self.spec.num_days
        return np.where(uniform(self.keys, "leaves") < self.spec.leaving_share, day, np.inf)

    def _return_chance(self, day: int, gap: Floats) -> Floats:
        """Return the chance of a visit on ``day`` for users whose last visit was ``gap`` days earlier."""
        taste = (self.tastes[:, min(day, self.spec.num_days - 1)] * self._pull).sum(axis=1)
        weekend = 0.3 * (((self.spec.first_day.weekday() + day) % 7 >= 5) - 2 / 7)
        fading = _FADING * np.maximum(0.0, 1 + (day - self._leaving_day) / _FADING_DAYS)
        chance = _chance(self._own_odds + taste + weekend + _recency_odds(gap) - fading)
        return np.where(day < self._leaving_day, chance, 0.0)

    @cached_property
    def _visits(self) -> tuple[Flags, Floats]:
        """U x D, whether each user visits on each day; U, days from the last visit to the day after the log."""
        active_UD = np.zeros((len(self.numbers), self.spec.num_days), dtype=bool)
        gap = np.minimum(np.maximum(-self.registered_day, 1), np.ceil(-8 * np.log(uniform(self.keys, "gap"))))
        for day in range(self.spec.num_days):
            is_visit = uniform(keys_of(self.keys, day), "visit") < self._return_chance(day, gap)
            is_visit = is_visit & (self.registered_day < day) & ~self.is_heavy | (self.registered_day == day)
            active_UD[:, day] = is_visit
            gap = np.where(is_visit | self.is_heavy, 1.0, gap + 1)
        return active_UD, gap

    def churn_rate(self, horizon_days: int = 7) -> Floats:
        """Return each user's chance of no visit in the days after the log, given its last taste and visit."""
        gap, stays_away = self._visits[1], np.ones(len(self.numbers))
        for ahead in range(horizon_days):
            stays_away = stays_away * (1 - self._return_chance(self.spec.num_days + ahead, gap + ahead))
        return np.where(self.is_heavy, 0.0, stays_away)

    def sessions(self) -> tuple[Ints, Ints, Ints]:
        """Return the sessions of all but the heavy user as row, day and number within the day, in this order."""
        rows, days = np.nonzero(self._visits[0])
        has_second = uniform(keys_of(self.keys[rows], days), "second session") < SECOND_SESSION_SHARE
        visit = np.repeat(np.arange(len(rows)), 1 + has_second)
        slots = np.concatenate([[False], visit[1:] == visit[:-1]]).astype(np.int64) if len(visit) else visit
        return rows[visit], days[visit], slots

    def events(self, catalog: Catalog, rows: Ints, days: Ints, slots: Ints) -> dict[str, Any]:
        """Return the events of sessions (ordered as by ``sessions``), without faults; one array entry per event.

        A session's events follow each other within minutes, all on its day and after the registration.
        """
        session_keys = keys_of(self.keys[rows], days, slots)
        stop = np.log1p(-1 / self.spec.events_per_session)
        sizes = np.ceil(np.log(uniform(session_keys, "size")) / stop).astype(np.int64).clip(1, _SESSION_EVENTS)
        session = np.repeat(np.arange(len(rows)), sizes)
        first = np.cumsum(sizes) - sizes
        serial = np.arange(len(session)) - np.maximum.accumulate(np.where(slots == 0, first, 0))[session]
        keys = keys_of(self.keys[rows[session]], days[session], serial)

        items, share = self.chosen_items(catalog, keys, rows[session], days[session])
        kind = uniform(keys, "type")
        event_type = np.where(kind < 0.02 + 0.3 * (1 - share), 2, np.where(kind > 0.95, 1, 0))
        played = -np.log(uniform(keys, "seconds"))
        seconds = np.choose(event_type, [30 + np.floor(150 * played), 60.0, 1 + np.floor(5 * played)])
        usual = np.floor(3 * uniform(self.keys, "device") ** 2).astype(np.int64)[rows]
        other = np.floor(3 * uniform(session_keys, "other device")).astype(np.int64)
        device = np.where(uniform(session_keys, "usual device") < 0.8, usual, other)
        return {
            "keys": keys,
            "user": self.numbers[rows[session]],
            "is_heavy": self.is_heavy[rows[session]],
            "day": days[session],
            "serial": serial,
            "clock_ms": self._starts(session_keys, rows, days)[session] + _offsets(keys, session, first, sizes),
            "item": items,
            "event_type": event_type,
            "weight": seconds / 60,
            "device": device[session],
        }

    def _starts(self, session_keys: Keys, rows: Ints, days: Ints) -> Ints:
        """Return the start of each session, in milliseconds of its day, after the registration."""
        earliest = np.maximum(self.registered_ms[rows] - days * DAY_MS, 0) + 60_000
        late_in_day = np.maximum(uniform(session_keys, "clock"), uniform(session_keys, "clock again"))
        return np.asarray(earliest + (late_in_day * (DAY_MS - _SESSION_MS - 1 - earliest)).astype(np.int64))


def _offsets(keys: Keys, session: Ints, first: Ints, sizes: Ints) -> Ints:
    """Return each event's milliseconds since its session's start; sessions that get too long are compressed."""
    waits = 1000 + (-150_000 * np.log(uniform(keys, "wait"))).astype(np.int64)
    offsets = np.cumsum(waits)
    offsets -= offsets[first][session]
    lengths = offsets[first + sizes - 1]
    return np.where(lengths[session] > _SESSION_MS, offsets * _SESSION_MS // np.maximum(lengths[session], 1), offsets)

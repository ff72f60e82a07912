"""What a generated log plants: tastes that drift, items that come and go, and users who return or stay away.

NumPy only. Every random number is a hash of (seed, what it belongs to, what it is for): no generator carries state from
one user to the next. Users are simulated in blocks whose size depends on the specification alone, so that a block's
arithmetic is the same, to the bit, in whatever task it runs.

Days are numbered from the log's first day (0); times are milliseconds since that day began.
"""

import zlib
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep.errors import UsageError
from userrep.store.hashing import mixed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]

DAY_MS = 86_400_000
NEVER = 1 << 40  # as a day number: an item that does not die

_SESSION_MS = 3 * 3_600_000  # the longest session
_SESSION_EVENTS = 60
_SECOND_SESSION = 0.25  # share of active days that hold two sessions
_ACTIVE_SHARE = 0.2  # of a user's days, about
_RECENCY_PULL = 2.2  # log-odds of coming back that a visit on the day before adds ...
_RECENCY_DAYS = 5.0  # ... fading with this time constant
_ODDS_SPREAD = 1.0  # standard deviation of the log-odds over users
_TASTE_PULL = 2.5  # log-odds between the tastes that stay most and least is twice this
_DRIFT_DAYS = 30  # tastes move in a straight line between knots this far apart
_STAPLES = 16  # items that a user takes again and again, the first of them most often
_FADING_DAYS = 30  # how long before they leave for good users begin to stay away ...
_FADING = 4.0  # ... and the log-odds of a visit that they have lost by then

# Kinds of logs, as parameters of LogSpec. "repeat": most events repeat one of a user's few staples. "explore": tastes
# move on within weeks, and items are chosen far down the list. "churn": half of the users leave for good.
REGIMES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "repeat": {"repeat_share": 0.85},
    "explore": {"taste_memory": 0.6, "popularity_exponent": 0.3},
    "churn": {"leaving_share": 0.5},
}


@dataclass(frozen=True)
class LogSpec:
    """What to generate. Shares are of all rows of the log, and hold on average.

    Parameters
    ----------
    num_days : length of the log; its days are ``[first_day, first_day + num_days)``, UTC.
    events_per_user_day : mean number of events per registered user and day, about.
    num_tastes, num_genres : a taste has one or more home genres, so there are at least as many genres as tastes.
    heavy_user_share : share of events made by the one user ``u_heavy``; 0 for none.
    repeat_share : share of a user's events that repeat one of the user's own 16 staples.
    taste_memory : how much of a user's taste is left after 30 days: 1 for tastes that stay.
    popularity_exponent : popularity falls with an item's rank in its genre to the power of minus this; 0 for none.
    leaving_share : share of users who leave for good on a day of the log, after visiting less for 30 days.

    Raises
    ------
    UsageError
        With every value out of its range.
    """

    num_users: int = 3000
    num_items: int = 600
    first_day: date = date(2024, 1, 1)
    num_days: int = 150
    events_per_user_day: float = 0.6
    num_tastes: int = 8
    num_genres: int = 8
    seed: int = 7
    duplicate_share: float = 0.01
    late_share: float = 0.02
    malformed_share: float = 0.005
    heavy_user_share: float = 0.03
    repeat_share: float = 0.0
    taste_memory: float = 0.92
    popularity_exponent: float = 0.9
    leaving_share: float = 0.0

    def __post_init__(self) -> None:
        limits: list[tuple[str, float, float]] = [
            ("num_users", 2, 10**9),
            ("num_items", self.num_genres, 10**8),
            ("num_days", 1, 10_000),
            ("events_per_user_day", 0.01, 200),
            ("num_tastes", 2, self.num_genres),
            ("num_genres", 2, 12),
            ("seed", 0, 2**63 - 1),
            ("duplicate_share", 0, 0.5),
            ("late_share", 0, 0.5),
            ("malformed_share", 0, 0.5),
            ("heavy_user_share", 0, 0.5),
            ("repeat_share", 0, 1),
            ("taste_memory", 0, 1),
            ("popularity_exponent", 0, 2),
            ("leaving_share", 0, 1),
        ]
        faults = [
            f"LogSpec: {name} must be between {low:g} and {high:g}, got {getattr(self, name)}."
            for name, low, high in limits
            if not low <= getattr(self, name) <= high
        ]
        if faults:
            raise UsageError(faults)

    @property
    def users_per_block(self) -> int:
        """How many users are simulated at a time: as many as make some 200,000 events, at most 128."""
        return int(min(128, max(1, 200_000 / (self.events_per_user_day * self.num_days))))

    @property
    def num_blocks(self) -> int:
        return -(-self.num_users // self.users_per_block)

    @property
    def has_heavy_user(self) -> bool:
        return self.heavy_user_share > 0

    @property
    def events_per_session(self) -> float:
        return max(2.0, self.events_per_user_day / (_ACTIVE_SHARE * (1 + _SECOND_SESSION)))

    @property
    def heavy_sessions_per_day(self) -> int:
        """How many sessions a day give the heavy user its share of the events."""
        others = self.num_users * 0.85 * self.events_per_user_day  # 0.7 are there all along, 0.3 half of the time
        return max(1, round(others * self.heavy_user_share / (1 - self.heavy_user_share) / self.events_per_session))


def keys_of(*parts: Any) -> Keys:
    """Hash whole numbers (arrays or scalars, broadcast together) into one 64-bit key each (SplitMix64's finaliser)."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mixed(key + np.uint64(0x9E3779B97F4A7C15) ^ np.atleast_1d(np.asarray(part)).astype(np.uint64))
    return key


def uniform(keys: Keys, purpose: str) -> Floats:
    """Return one number in (0, 1) per key, independent between purposes."""
    salt = np.uint64(zlib.crc32(purpose.encode()) * 0x9E3779B97F4A7C15 % 2**64)
    high_bits: Floats = (mixed(keys ^ salt) >> np.uint64(11)).astype(np.float64)
    return (high_bits + 0.5) * 2.0**-53


def normal(keys: Keys, purpose: str) -> Floats:
    """Return one standard normal number per key (Box and Muller)."""
    radius = np.sqrt(-2 * np.log(uniform(keys, purpose + ".radius")))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(keys, purpose + ".angle")))


def drawn(shares: Floats, u: Floats) -> Ints:
    """Draw a column per row of ``shares`` (rows sum to one) with the uniform numbers ``u``."""
    return np.asarray((np.cumsum(shares, axis=1)[:, :-1] < u[:, None]).sum(axis=1), dtype=np.int64)


def _chance(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)))


def _recency_odds(gap: Floats) -> Floats:
    return np.asarray(_RECENCY_PULL * np.exp((1 - gap) / _RECENCY_DAYS))


def _base_odds(share: float) -> float:
    """Return the log-odds at which users are active on ``share`` of their days, over users who differ by their tastes.

    Visits renew themselves: a user's share is one over the mean gap, and that follows from the chances at each gap.
    """
    differences = _ODDS_SPREAD * np.linspace(-2.5, 2.5, 11)
    people = np.exp(-0.5 * (differences / _ODDS_SPREAD) ** 2)
    low, high = -20.0, 10.0
    for _ in range(40):
        base = (low + high) / 2
        chance = _chance(base + differences[:, None] + _recency_odds(np.arange(1.0, 200.0)))
        staying = np.cumprod(1 - chance, axis=1)
        mean_gap = 1 + staying[:, :-1].sum(axis=1) + staying[:, -1] / chance[:, -1]
        low, high = (base, high) if (people / mean_gap).sum() < share * people.sum() else (low, base)
    return base


class Catalog:
    """The items: genre, life and popularity. Item i is sold on the days ``[born[i], died[i])``.

    Popularity falls with the rank in the genre (Zipf). The first of each genre is always sold.
    Cost: O(items) time and memory, without a factor of days.
    """

    def __init__(self, spec: LogSpec) -> None:
        self.keys = keys_of(spec.seed, 1, np.arange(spec.num_items))
        order = np.argsort(self.keys, kind="stable")
        position = np.empty(spec.num_items, dtype=np.int64)
        position[order] = np.arange(spec.num_items)
        self.genre, rank = position % spec.num_genres, position // spec.num_genres
        self.evergreen = order[: spec.num_genres]

        is_new = (uniform(self.keys, "is new") < 0.3) & (rank > 0)
        age = 400 + (600 * uniform(self.keys, "age")).astype(np.int64)
        self.born = np.where(is_new, (spec.num_days * uniform(self.keys, "born")).astype(np.int64), -age)
        is_mortal = (uniform(self.keys, "is mortal") < 0.4) & (rank > 0)
        life = 7 + (spec.num_days * uniform(self.keys, "life")).astype(np.int64)
        self.died = np.where(is_mortal, np.maximum(self.born, 0) + life, NEVER)

        # One inverse distribution function for all genres: genre g owns (g, g + 1].
        self._items = np.lexsort((rank, self.genre))
        mass = (1.0 + rank[self._items]) ** -spec.popularity_exponent
        ends = np.cumsum(np.bincount(self.genre, minlength=spec.num_genres)) - 1
        total = np.cumsum(mass)
        before = np.concatenate([[0.0], total[ends][:-1]])[self.genre[self._items]]
        within = (total - before) / np.add.reduceat(mass, np.concatenate([[0], ends[:-1] + 1]))[self.genre[self._items]]
        within[ends] = 1.0
        self._distribution = self.genre[self._items] + within

    def is_sold(self, items: Ints, days: Ints) -> Flags:
        return np.asarray((self.born[items] <= days) & (days < self.died[items]))

    def drawn_items(self, keys: Keys, genres: Ints, days: Ints) -> Ints:
        """Draw one item per key among those of its genre that are sold on its day, by popularity."""
        items = self.evergreen[genres]
        waiting = np.arange(len(keys))
        for attempt in range(12):  # redrawing what is not sold leaves the others' proportions as they are
            places = np.searchsorted(self._distribution, genres[waiting] + uniform(keys[waiting], f"item {attempt}"))
            found = self._items[places]
            sold = self.is_sold(found, days[waiting])
            items[waiting[sold]] = found[sold]
            waiting = waiting[~sold]
        return items


class Population:
    """A set of users (arrays in the order of ``numbers``), simulated over all days of the log.

    ``registered_ms`` : int64 [U]; before 0 for those who were there when the log began.
    ``tastes`` : [U, days, tastes], shares that sum to one; a random walk around the user's own centre.
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
        place, part = np.divmod(np.arange(num_days) / _DRIFT_DAYS, 1)
        at = place.astype(np.int64)
        logits_UDK = steps_UJK[:, at] * (1 - part)[:, None] + steps_UJK[:, at + 1] * part[:, None]
        weights_UDK = np.exp(logits_UDK + np.linspace(0.5, -0.5, num_tastes))
        return np.asarray(weights_UDK / weights_UDK.sum(axis=2, keepdims=True))

    def taste_on(self, rows: Ints, days: Ints) -> Floats:
        """Return the tastes of users (by row) on days; before the log they are as on its first day."""
        return np.asarray(self.tastes[rows, np.maximum(days, 0)])

    def leading_taste(self) -> Ints:
        """Return each user's strongest taste at registration; attributes follow from it."""
        return np.asarray(np.argmax(self.taste_on(np.arange(len(self.numbers)), self.registered_day), axis=1))

    def drawn_items(self, catalog: Catalog, keys: Keys, rows: Ints, days: Ints) -> tuple[Ints, Floats]:
        """Draw a taste, then a genre, then an item per key; also return how large the drawn taste's share is."""
        return self._drawn_by(self.taste_on(rows, days), catalog, keys, days)

    def _drawn_by(self, shares: Floats, catalog: Catalog, keys: Keys, days: Ints) -> tuple[Ints, Floats]:
        tastes = drawn(shares, uniform(keys, "taste"))
        genres = drawn(self._genres_by_taste[tastes], uniform(keys, "genre"))
        return catalog.drawn_items(keys, genres, days), shares[np.arange(len(keys)), tastes]

    def chosen_items(self, catalog: Catalog, keys: Keys, rows: Ints, days: Ints) -> tuple[Ints, Floats]:
        """Draw an item per event: one of the user's staples, or one as ``drawn_items`` does.

        A staple is drawn by the taste at registration, always with the same random numbers, so it is the same item
        until that is no longer sold, or until one that comes before it in this draw is.
        """
        repeats = uniform(keys, "repeats") < self.spec.repeat_share
        number = (_STAPLES * uniform(keys, "staple") ** 2).astype(np.int64)
        staple_keys = keys_of(self.keys[rows], 6, 6, number)
        shares = self.taste_on(rows, np.where(repeats, self.registered_day[rows], days))
        return self._drawn_by(shares, catalog, np.where(repeats, staple_keys, keys), days)

    @cached_property
    def _own_odds(self) -> Floats:
        """What holds at any time: the odds that give the wanted number of visits, and the user's own deviation."""
        share = self.spec.events_per_user_day / (self.spec.events_per_session * (1 + _SECOND_SESSION))
        return _base_odds(share) + 0.4 * normal(self.keys, "odds")

    @cached_property
    def _leaving_day(self) -> Floats:
        """The day on which a user leaves for good; infinite for those who stay."""
        day = np.maximum(self.registered_day, 0) + uniform(self.keys, "leaving day") * self.spec.num_days
        return np.where(uniform(self.keys, "leaves") < self.spec.leaving_share, day, np.inf)

    def _return_chance(self, day: int, gap: Floats) -> Floats:
        """Return the chance of a visit on ``day`` by users whose last one was ``gap`` days before it."""
        taste = (self.tastes[:, min(day, self.spec.num_days - 1)] * self._pull).sum(axis=1)
        weekend = 0.3 * (((self.spec.first_day.weekday() + day) % 7 >= 5) - 2 / 7)
        fading = _FADING * np.maximum(0.0, 1 + (day - self._leaving_day) / _FADING_DAYS)
        chance = _chance(self._own_odds + taste + weekend + _recency_odds(gap) - fading)
        return np.where(day < self._leaving_day, chance, 0.0)

    @cached_property
    def _visits(self) -> tuple[Flags, Floats]:
        """Which users visit on which days, and the days from each one's last visit to the day after the log."""
        active_UD = np.zeros((len(self.numbers), self.spec.num_days), dtype=bool)
        gap = np.minimum(np.maximum(-self.registered_day, 1), np.ceil(-8 * np.log(uniform(self.keys, "gap"))))
        for day in range(self.spec.num_days):
            comes = uniform(keys_of(self.keys, day), "visit") < self._return_chance(day, gap)
            comes = comes & (self.registered_day < day) & ~self.is_heavy | (self.registered_day == day)
            active_UD[:, day] = comes
            gap = np.where(comes | self.is_heavy, 1.0, gap + 1)
        return active_UD, gap

    def churn_rate(self, horizon_days: int = 7) -> Floats:
        """Return each user's chance of no visit in the days after the log, given its last taste and recency."""
        gap, stays_away = self._visits[1], np.ones(len(self.numbers))
        for ahead in range(horizon_days):
            stays_away = stays_away * (1 - self._return_chance(self.spec.num_days + ahead, gap + ahead))
        return np.where(self.is_heavy, 0.0, stays_away)

    def sessions(self) -> tuple[Ints, Ints, Ints]:
        """Return the sessions of all but the heavy user, as row, day and number within the day, in that order."""
        rows, days = np.nonzero(self._visits[0])
        twice = uniform(keys_of(self.keys[rows], days), "second session") < _SECOND_SESSION
        again = np.repeat(np.arange(len(rows)), 1 + twice)
        slots = np.concatenate([[False], again[1:] == again[:-1]]).astype(np.int64) if len(again) else again
        return rows[again], days[again], slots

    def events(self, catalog: Catalog, rows: Ints, days: Ints, slots: Ints) -> dict[str, Any]:
        """Return the events of sessions (as ``sessions`` orders them), one array entry per event, without faults.

        A session's events follow each other within minutes, all on its day and after the registration.
        """
        session_keys = keys_of(self.keys[rows], days, slots)
        stop = np.log1p(-1 / self.spec.events_per_session)
        sizes = np.ceil(np.log(uniform(session_keys, "size")) / stop).astype(np.int64).clip(1, _SESSION_EVENTS)
        of = np.repeat(np.arange(len(rows)), sizes)
        first = np.cumsum(sizes) - sizes
        serial = np.arange(len(of)) - np.maximum.accumulate(np.where(slots == 0, first, 0))[of]
        keys = keys_of(self.keys[rows[of]], days[of], serial)

        waits = 1000 + (-150_000 * np.log(uniform(keys, "wait"))).astype(np.int64)
        offsets = np.cumsum(waits)
        offsets -= offsets[first][of]
        lengths = offsets[first + sizes - 1]
        offsets = np.where(lengths[of] > _SESSION_MS, offsets * _SESSION_MS // np.maximum(lengths[of], 1), offsets)
        earliest = np.maximum(self.registered_ms[rows] - days * DAY_MS, 0) + 60_000
        late_in_day = np.maximum(uniform(session_keys, "clock"), uniform(session_keys, "clock again"))
        starts = earliest + (late_in_day * (DAY_MS - _SESSION_MS - 1 - earliest)).astype(np.int64)

        items, share = self.chosen_items(catalog, keys, rows[of], days[of])
        kind = uniform(keys, "type")
        event_type = np.where(kind < 0.02 + 0.3 * (1 - share), 2, np.where(kind > 0.95, 1, 0))
        played = -np.log(uniform(keys, "seconds"))
        seconds = np.choose(event_type, [30 + np.floor(150 * played), 60.0, 1 + np.floor(5 * played)])
        usual = np.floor(3 * uniform(self.keys, "device") ** 2).astype(np.int64)[rows]
        other = np.floor(3 * uniform(session_keys, "other device")).astype(np.int64)
        device = np.where(uniform(session_keys, "usual device") < 0.8, usual, other)
        return {
            "keys": keys,
            "user": self.numbers[rows[of]],
            "is_heavy": self.is_heavy[rows[of]],
            "day": days[of],
            "serial": serial,
            "clock_ms": starts[of] + offsets,
            "item": items,
            "event_type": event_type,
            "weight": seconds / 60,
            "device": device[of],
        }

"""Specification of a generated log, and named kinds of logs."""

from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any

from userrep.errors import UsageError

SECOND_SESSION_SHARE = 0.25  # share of active days with two sessions
_ACTIVE_SHARE = 0.2  # approximate share of days on which a user is active

# Kinds of logs, as parameters of LogSpec. "repeat": most events repeat one of a user's few staples. "explore": tastes
# change within weeks, and less popular items are chosen more often. "churn": half of the users leave for good.
REGIMES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "repeat": {"repeat_share": 0.85},
    "explore": {"taste_memory": 0.6, "popularity_exponent": 0.3},
    "churn": {"leaving_share": 0.5},
}


def _within(low: float | str, high: float | str, *, default: float) -> Any:
    """Return a field with limits, both included; a text names the field whose value is the limit."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True)
class LogSpec:
    """Specification of a generated log. Shares are of all rows of the log, on average.

    Parameters
    ----------
    num_days : length of the log; its days are ``[first_day, first_day + num_days)``, UTC.
    events_per_user_day : approximate mean number of events per registered user and day.
    num_tastes, num_genres : each taste has one or more home genres, so there are at least as many genres as tastes.
    heavy_user_share : share of events of the single user ``u_heavy``; 0 for no such user.
    repeat_share : share of a user's events that repeat one of the user's own 16 staples.
    taste_memory : correlation of a user's taste with that of 30 days earlier; 1 for constant tastes.
    popularity_exponent : popularity falls with an item's rank in its genre to the power of minus this; 0 for uniform.
    leaving_share : share of users who leave for good on a day of the log, after visiting less for 30 days.

    Raises
    ------
    UsageError
        If any value is out of range; lists all of them.
    """

    num_users: int = _within(2, 10**9, default=3000)
    num_items: int = _within("num_genres", 10**8, default=600)
    first_day: date = date(2024, 1, 1)
    num_days: int = _within(1, 10_000, default=150)
    events_per_user_day: float = _within(0.01, 200, default=0.6)
    num_tastes: int = _within(2, "num_genres", default=8)
    num_genres: int = _within(2, 12, default=8)
    seed: int = _within(0, 2**63 - 1, default=7)
    duplicate_share: float = _within(0, 0.5, default=0.01)
    late_share: float = _within(0, 0.5, default=0.02)
    malformed_share: float = _within(0, 0.5, default=0.005)
    heavy_user_share: float = _within(0, 0.5, default=0.03)
    repeat_share: float = _within(0, 1, default=0.0)
    taste_memory: float = _within(0, 1, default=0.92)
    popularity_exponent: float = _within(0, 2, default=0.9)
    leaving_share: float = _within(0, 1, default=0.0)

    def __post_init__(self) -> None:
        faults = []
        for name, limits in ((each.name, each.metadata["limits"]) for each in fields(self) if each.metadata):
            low, high = (getattr(self, limit) if isinstance(limit, str) else limit for limit in limits)
            if not low <= getattr(self, name) <= high:
                faults.append(f"LogSpec: {name} must be between {low:g} and {high:g}, got {getattr(self, name)}.")
        if faults:
            raise UsageError(faults)

    @property
    def users_per_block(self) -> int:
        """Users simulated at a time: as many as have about 200,000 events, at most 128."""
        return int(min(128, max(1, 200_000 / (self.events_per_user_day * self.num_days))))

    @property
    def num_blocks(self) -> int:
        return -(-self.num_users // self.users_per_block)

    @property
    def has_heavy_user(self) -> bool:
        return self.heavy_user_share > 0

    @property
    def events_per_session(self) -> float:
        return max(2.0, self.events_per_user_day / (_ACTIVE_SHARE * (1 + SECOND_SESSION_SHARE)))

    @property
    def heavy_sessions_per_day(self) -> int:
        """Sessions per day that give the heavy user its share of the events."""
        others = self.num_users * 0.85 * self.events_per_user_day  # 70 % are registered all the time, 30 % half of it
        return max(1, round(others * self.heavy_user_share / (1 - self.heavy_user_share) / self.events_per_session))

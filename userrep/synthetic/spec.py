"""Specification of a generated log, and named kinds of logs."""

from dataclasses import dataclass
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

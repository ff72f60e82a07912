"""How labels are joined with embeddings, and what labels must be."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pyspark.sql import DataFrame

from userrep.errors import UsageError
from userrep.joins.resolution import Availability

Missing = Literal["null", "new_user", "drop"]
Vectors = Literal["array", "vector"]
InSample = Literal["warn", "refuse"]

_UTC = re.compile(r"(Etc/)?(UTC|UCT|GMT|Zulu|Universal)|Z|[+-]00:00")


class InSampleWarning(UserWarning):
    """Labels get vectors of dates whose future the space was trained on."""


@dataclass(frozen=True)
class JoinOptions:
    """What of the labels is joined, and what comes out.

    user, time : the labels' columns: string, and timestamp (UTC). output : the column of vectors.
    availability : ``ledger``: what a consumer could have had at the label's time. ``as_of``: the newest as-of date at
        or before it, whenever it was made; such labels may see what nobody could have had yet.
    max_age_days : a vector whose as-of date lies more than so many days before the label's time does not count.
    missing : what a user gets who is not in the snapshot: ``null``, or the ``new_user`` vector, the encoder's of a user
        of whom nothing is known. ``drop``: labels without a vector are left out, whatever the reason.
    updates : near-real-time vectors of ``embedding_updates`` count too.
    vectors : ``array`` for array<float>, ``vector`` for Spark ML's VectorUDT.
    in_sample : what to do about labels whose vectors are of dates before the space's ``trained_until``: ``warn``
        (InSampleWarning), or ``refuse`` them all (UsageError). Their status is ``in_sample`` either way.

    Raises UsageError, with all faults, for values that are none of these.
    """

    user: str = "user_id"
    time: str = "label_at"
    output: str = "embedding"
    availability: Availability = "ledger"
    max_age_days: int | None = None
    missing: Missing = "null"
    updates: bool = False
    vectors: Vectors = "array"
    in_sample: InSample = "warn"

    def __post_init__(self) -> None:
        known = {"availability": Availability, "missing": Missing, "vectors": Vectors, "in_sample": InSample}
        faults = [
            f"{name} {getattr(self, name)!r}: one of {', '.join(get_args(values))} was expected."
            for name, values in known.items()
            if getattr(self, name) not in get_args(values)
        ]
        if self.max_age_days is not None and self.max_age_days < 0:
            faults.append(f"max_age_days {self.max_age_days}: a number of days, 0 or more, or none for no limit.")
        if faults:
            raise UsageError(faults)

    @property
    def status(self) -> str:
        """The column that says how a label came by its vector, or why it has none."""
        return f"{self.output}_status"

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that a join adds."""
        return "snapshot_id", "as_of", self.output, self.status


def check_labels(labels: DataFrame, options: JoinOptions) -> None:
    """Refuse labels that cannot be joined: types, names, and a session that is not in UTC.

    Raises
    ------
    UsageError
        With all faults at once.
    """
    found = dict(labels.dtypes)
    cures = {options.user: "cast it to string", options.time: "cast it to timestamp, in a session that runs in UTC"}
    faults = [
        f"labels: column {name!r} is {found.get(name, 'missing')}; wanted {wanted}: "
        + (f"{cures[name]}." if name in found else f"the columns are {', '.join(found)}.")
        for name, wanted in ((options.user, "string"), (options.time, "timestamp"))
        if found.get(name) != wanted
    ]
    faults += [
        f"labels: column {name!r} is there already; the join adds one of that name: rename or drop it."
        for name in options.added
        if name in found
    ]
    zone = labels.sparkSession.conf.get("spark.sql.session.timeZone") or ""
    if not _UTC.fullmatch(zone):
        faults.append(
            f"the Spark session's time zone is {zone}; wanted UTC, in which the ledger's times are: "
            "set spark.sql.session.timeZone to UTC before the labels are read."
        )
    if faults:
        raise UsageError(faults)

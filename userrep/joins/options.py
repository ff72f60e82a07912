"""Options of a point-in-time join, and checks of the labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from userrep.errors import UsageError, did_you_mean
from userrep.logs import warn_caller
from userrep.store.sql import sql_name
from userrep.utc import DAY_US

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Column, DataFrame

Availability = Literal["ledger", "as_of"]
HandleInvalid = Literal["error", "skip", "keep"]
Missing = Literal["null", "new_user", "drop"]
Vectors = Literal["array", "vector"]
InSample = Literal["warn", "refuse"]

_INTERMEDIATE = frozenset([
    "__as_of", "__bucket", "__day", "__embedding", "__in_sample", "__number", "__revision", "__since", "__snapshot_id",
    "__state", "__status", "__until", "__update", "__user",
])  # fmt: skip
_WHOLE_NUMBERS = ("tinyint", "smallint", "int", "bigint")


class InSampleWarning(UserWarning):
    """Labels get vectors of as-of dates before the space's ``trained_until``."""


class JoinParams(TypedDict, total=False):
    """Options of a join. They have the names and meanings of the Params of ``EmbeddingJoin``."""

    userCol: str
    timeCol: str
    outputCol: str
    availability: str
    maxAgeDays: int | None
    handleInvalid: str
    missing: str
    updates: bool
    vectors: str
    inSample: str


@dataclass(frozen=True)
class JoinOptions:
    """Columns and rules of a point-in-time join.

    user, time : columns of the labels: user ids (string) and label times (timestamp, UTC). output : name of the column
        of vectors.
    availability : ``ledger``: use the snapshots that a consumer could have had at the label's time. ``as_of``: use the
        newest as-of date at or before the label's time, whenever it was built. Such labels may see vectors that were
        not published yet.
    max_age_days : maximum age of a vector, from its as-of date to the label's time, in days. Older vectors are not
        used. None for no limit.
    handle_invalid : rule for labels without a vector, for whatever reason: ``keep`` them with a null, ``skip`` them, or
        ``error`` to fail.
    missing : value for users that are not in the snapshot: ``null``, or ``new_user`` for the encoder's vector of a user
        without any data, which is then a valid vector. ``drop``: an earlier name of ``handle_invalid="skip"``.
    updates : also use the near-real-time vectors of ``embedding_updates``.
    vectors : ``array`` for array<float>, ``vector`` for Spark ML's VectorUDT.
    in_sample : handling of labels whose vectors have an as-of date before the space's ``trained_until``: ``warn``
        (InSampleWarning), or ``refuse`` the join (UsageError). With ``warn``, their status is ``in_sample``.

    Raises UsageError, listing all faults, if a value is not allowed.
    """

    user: str = "user_id"
    time: str = "label_at"
    output: str = "embedding"
    availability: Availability = "ledger"
    max_age_days: int | None = None
    handle_invalid: HandleInvalid = "keep"
    missing: Missing = "null"
    updates: bool = False
    vectors: Vectors = "array"
    in_sample: InSample = "warn"

    def __post_init__(self) -> None:
        faults = [
            f"{name}: expected one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}."
            for name, kind in get_type_hints(type(self)).items()
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind)
        ]
        days = self.max_age_days
        if days is not None and (isinstance(days, bool) or not isinstance(days, Integral) or days < 0):
            faults.append(f"max_age_days: expected a whole number of at least 0, or None for no limit, got {days}.")
        elif days is not None:
            object.__setattr__(self, "max_age_days", int(days))  # of NumPy's types, too
        if not isinstance(self.updates, bool):
            faults.append(f"updates: expected True or False, got {self.updates!r}.")
        if not self.output:
            faults.append("output: expected the name of a column, got an empty text.")
        if len(set(self.added)) < len(self.added):
            faults.append(f"output: the join adds another column named {self.output!r}. Choose another name.")
        if faults:
            raise UsageError(faults)

    @classmethod
    def of_params(cls, params: dict[str, Any]) -> JoinOptions:
        """Return the options of these Params of ``EmbeddingJoin``.

        Raises
        ------
        UsageError
            If a name is unknown or a value is not allowed; all faults, with the names of the Params.
        """
        known = {param_of(field.name): field.name for field in fields(cls)}
        otherwise = f"known options: {', '.join(known)}."
        if unknown := [name for name in params if name not in known]:
            raise UsageError([f"unknown option {name}; {did_you_mean(name, known, otherwise)}" for name in unknown])
        try:
            return cls(**{known[name]: value for name, value in params.items()})
        except UsageError as error:
            raise UsageError(
                [re.sub(r"^\w+", lambda name: param_of(name[0]), fault) for fault in error.faults]
            ) from None

    @property
    def skips(self) -> bool:
        """Whether labels without a vector are left out."""
        return self.handle_invalid == "skip" or self.missing == "drop"

    @property
    def status(self) -> str:
        """Name of the status column: where a label's vector comes from, or why there is none."""
        return f"{self.output}_status"

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that a join adds."""
        return "snapshot_id", "as_of", self.output, self.status


def param_of(option: str) -> str:
    """Return the name of an option as a Param of ``EmbeddingJoin``: ``max_age_days`` is ``maxAgeDays``."""
    if option in ("user", "time", "output"):
        return f"{option}Col"
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), option)


def name_faults(columns: Sequence[str], options: JoinOptions) -> list[str]:
    """Return a fault for each column of the labels that has the name of an output column."""
    return [
        f"labels: column {name!r} already exists, and the join adds a column of that name. Rename or drop it."
        for name in options.added
        if name in columns
    ]


def case_faults(columns: Iterable[str], options: JoinOptions) -> list[str]:
    """Return a fault for each column of the labels that Spark, which ignores case, takes for an output column."""
    added = {name.lower() for name in options.added}
    return [
        f"labels: column {name!r} is the same to Spark as a column that the join adds. Rename or drop it."
        for name in columns
        if name.lower() in added and name not in options.added
    ]


def without_vector(status: str) -> str:
    """Return the error message for a label without a vector."""
    return (
        f"labels: a label has no vector (status {status}). Set handleInvalid to 'skip' to leave such labels out, or to "
        "'keep' to keep them with a null."
    )


def wrong_width(space_id: str, dim: int, got: int | str) -> str:
    """Return the error message for a vector with another number of dimensions than its space."""
    return (
        f"space {space_id}: a vector must have {dim} dimensions, got {got}. Rows of user_embeddings or "
        "embedding_updates were not written by userrep. Delete them, and rebuild their dates with `userrep backfill`."
    )


def outside_span(first: datetime, last: datetime, got: object) -> str:
    """Return the error message for a label outside the span of its training set."""
    return (
        f"labels: a time outside the training set's span, {first} to {last} UTC, got {got}. Use the labels that the "
        "training set was created from, or create another training set."
    )


def prepared(labels: DataFrame, options: JoinOptions) -> DataFrame:
    """Return labels whose user ids are strings and whose times are timestamps, cast as in a join of pandas labels.

    User ids that are whole numbers are cast to string. A date is its 00:00 UTC, and a time without a zone is UTC. Each
    cast is a warning. Raises the errors of ``check_labels``.
    """
    types = dict(labels.dtypes)
    if types.get(options.user) in _WHOLE_NUMBERS:
        warn_of_cast(f"labels: column {options.user!r}")
        labels = labels.withColumn(options.user, column(options.user).cast("string"))
    if (kind := types.get(options.time)) in ("date", "timestamp_ntz"):
        meaning = "dates, which are their 00:00 UTC" if kind == "date" else "times without a zone, which are UTC"
        warn_caller(f"labels: column {options.time!r} has {meaning}.")
        at = column(options.time)
        labels = labels.withColumn(options.time, midnight(at) if kind == "date" else _in_utc(at))
    check_labels(labels, options)
    return labels


def warn_of_cast(where: str) -> None:
    """Warn that user ids are cast to string."""
    warn_caller(f"{where} has whole numbers, which are cast to string.")


def midnight(day: Column) -> Column:
    """Return the 00:00 UTC of a date; a cast to timestamp gives midnight in the session's time zone."""
    from pyspark.sql import functions as F

    return F.timestamp_micros(F.unix_date(day).cast("long") * DAY_US)


def _in_utc(at: Column) -> Column:
    """Return a timestamp_ntz as a timestamp in UTC. A cast takes the session's time zone, where an hour comes twice."""
    from pyspark.sql import functions as F

    return F.concat(at.cast("string"), F.lit("Z")).cast("timestamp_ltz")


def check_labels(labels: DataFrame, options: JoinOptions) -> None:
    """Check the labels' columns.

    Raises
    ------
    UsageError
        If a column is missing, has another type or conflicts with an output column. The error lists all faults.
    """
    types = dict(labels.dtypes)
    is_fraction = types.get(options.user) in ("double", "float")
    to_text = "Cast whole numbers to bigint: as text, they would be 7.0" if is_fraction else "Cast it to string"
    cures = {options.user: to_text, options.time: "Cast it to timestamp"}
    faults = [
        f"labels: column {name!r} must be of type {expected}, got {types[name]}. {cures[name]}."
        if name in types
        else f"labels: column {name!r} of type {expected} is missing. The columns are {', '.join(types)}."
        for name, expected in ((options.user, "string"), (options.time, "timestamp"))
        if types.get(name) != expected
    ]
    faults += [*name_faults(list(types), options), *case_faults(types, options)]
    twice = [name for name, number in Counter(name for name, _ in labels.dtypes).items() if number > 1]
    faults += [f"labels: several columns are named {name!r}. Rename or drop all but one." for name in twice]
    faults += [f"labels: column {name!r} is a name that the join uses itself. Rename it." for name in types
               if name.lower() in _INTERMEDIATE]  # fmt: skip
    if faults:
        raise UsageError(faults)


def column(name: str) -> Column:
    """Return a column by its exact name, which may contain dots and backticks."""
    from pyspark.sql import functions as F

    return F.col(sql_name(name))

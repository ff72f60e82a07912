"""Records: what the stream keeps in its state for every event, pick and registration of the open days.

The records of a user and window form a set, which ignores order and repetition. The state can therefore be rebuilt from
the sources, and ends up with the events that the batch keeps when it deduplicates a day.
"""

from collections.abc import Callable, Mapping
from datetime import date
from functools import partial, reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.features.profiles import picks_of, users_of
from userrep.sources.read import CORRUPT, first_broken, is_missing_id, is_plausible, with_validity
from userrep.store.sql import sql_name
from userrep.streaming.sources import ARRIVED, ORIGIN

EVENT, PICK, USER = "event", "pick", "user"
_MAX_CLOCK_SKEW = "INTERVAL 1 HOUR"
_MICROS = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"}
_ARRIVAL = (ARRIVED, ORIGIN)


def checked_rows(arrived: Mapping[str, DataFrame], config: Config, *, is_own_source: bool, since: date) -> DataFrame:
    """Validate arriving rows of all sources and convert them to records.

    Events are validated as in the batch, with one more rule: an event more than one hour ahead of the clock is
    rejected, because it would move the watermark and close days too early. The batch accepts it once its time has come.

    Parameters
    ----------
    arrived : streams by source name. is_own_source : whether events come from a source of the stream, which has no
        partition column. since : UTC day; a registration before it, or without a time, gets its arrival as ``at``.

    Returns
    -------
    user_id, at (UTC), ARRIVED, ORIGIN, reason (null for valid rows), row (text), and record, a struct of kind, at,
    item_id, weight, words (context keys ``column=value``), event_id, raw (distinguishes copies of an event),
    registered_at, attributes. Narrow, without a shuffle.
    """
    check: dict[str, Callable[[DataFrame], DataFrame]] = {
        "events": partial(_events, config=config, is_own_source=is_own_source),
        "onboarding": partial(_picks, config=config),
        "users": partial(_registrations, config=config, since=since),
    }
    checked = [check[name](rows) for name, rows in arrived.items()]
    kinds = {
        "kind": T.StringType(), "at": T.TimestampType(), "item_id": T.StringType(), "weight": T.DoubleType(),
        "words": T.ArrayType(T.StringType()), "event_id": T.StringType(),
        "raw": checked[0].schema["raw"].dataType, "registered_at": T.TimestampType(),
        "attributes": T.ArrayType(T.StringType()),
    }  # fmt: skip

    def with_record(rows: DataFrame) -> DataFrame:
        has = {name: F.col(name) for name in rows.columns}
        columns = [has.get(name, F.lit(None)).cast(kind).alias(name) for name, kind in kinds.items()]
        is_ahead = F.col("at") > F.expr(f"current_timestamp() + {_MAX_CLOCK_SKEW}")
        reason = F.coalesce("reason", F.when(is_ahead, F.lit("ahead_of_the_clock")))
        return rows.select(
            "user_id", "at", *_ARRIVAL, reason.alias("reason"), "row", F.struct(*columns).alias("record")
        )

    return reduce(DataFrame.unionByName, map(with_record, checked))


def _events(arrived: DataFrame, *, config: Config, is_own_source: bool) -> DataFrame:
    """Return events with a reason and the columns of their records."""
    log, context = config.events.all_sources["events"], config.events.context
    if is_own_source:
        log = log.model_copy(update={"partition": None})
    rows = with_validity(arrived, log, context, pass_through=_ARRIVAL)
    context_keys = [F.concat(F.lit(f"{name}="), F.col(f"context_{k}")) for k, name in enumerate(context)]
    columns = {"kind": F.lit(EVENT), "at": F.col("event_at"), "row": F.coalesce("corrupt", F.to_json("raw"))}
    if not log.columns.event_id:
        columns["raw"] = F.xxhash64(F.to_json("raw", _MICROS))
    if context_keys:
        columns["words"] = F.array_compact(F.array(*context_keys))
    return rows.withColumns(columns)


def _picks(arrived: DataFrame, *, config: Config) -> DataFrame:
    assert config.onboarding is not None
    rows = picks_of(_with_row(arrived), config.onboarding, *_ARRIVAL, "row", "corrupt")
    rows = rows.withColumns({"kind": F.lit(PICK), "at": F.col("event_at")})
    return _with_reason(
        rows, {"missing_item_id": F.col("item_id").isNull(), "unreadable_event_at": F.col("at").isNull()}
    )


def _registrations(arrived: DataFrame, *, config: Config, since: date) -> DataFrame:
    assert config.users is not None
    rows = users_of(_with_row(arrived), config.users, *_ARRIVAL, "row", "corrupt")
    is_recent = F.col("registered_at").between(F.lit(since).cast("timestamp"), F.col(ARRIVED))
    at = F.when(is_recent, F.col("registered_at")).otherwise(F.col(ARRIVED))
    return _with_reason(rows.withColumns({"kind": F.lit(USER), "at": at}), {})


def _with_row(arrived: DataFrame) -> DataFrame:
    """Add the columns ``row``, the whole row as text, and ``corrupt``, the text that could not be parsed."""
    names = [name for name in arrived.columns if name not in (CORRUPT, *_ARRIVAL)]
    corrupt = F.col(CORRUPT) if CORRUPT in arrived.columns else F.lit(None).cast("string")
    row = F.to_json(F.struct(*map(sql_name, names)))
    return arrived.withColumns({"corrupt": corrupt, "row": F.coalesce(corrupt, row)})


def _with_reason(rows: DataFrame, rules: Mapping[str, Column]) -> DataFrame:
    """Add ``reason``, the name of the first rule that a pick or registration breaks, with the names used for events."""
    rules = {
        "unparsable_row": F.col("corrupt").isNotNull(),
        "missing_user_id": is_missing_id("user_id"),
        **rules,
        "implausible_event_at": ~is_plausible("at"),
    }
    return rows.withColumn("reason", first_broken(rules))

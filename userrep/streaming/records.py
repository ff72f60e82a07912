"""What the stream remembers of the open days: one record for each event, pick and registration of a user.

A user's records of a window are a set. Whatever comes twice, in another order, or again after a restart, is in it once:
that is why the state can be rebuilt, and why it ends as the batch's deduplication of a day does.
"""

from collections.abc import Callable, Mapping
from datetime import date
from functools import partial, reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.features.sides import picks_of, users_of
from userrep.sources.source import CORRUPT, is_plausible, with_validity
from userrep.streaming.arriving import ARRIVED, PLACE

EVENT, PICK, USER = "event", "pick", "user"
_AHEAD = "INTERVAL 1 HOUR"  # by which clocks may be wrong
_MICROS = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"}
_BESIDE = (ARRIVED, PLACE)

_Checked = tuple[DataFrame, dict[str, Column]]  # rows with a reason, and the columns of their records


def checked_rows(arrived: Mapping[str, DataFrame], config: Config, *, in_kafka: bool, since: date) -> DataFrame:
    """Say of all rows that arrive, of events, onboarding and users, what they record, or why they don't count.

    Events are judged as in the batch, but that they may be an hour ahead of the clock, no more: they would close days
    too early. What is rejected so the batch takes when its time has come. ``in_kafka``: events are messages, which are
    in no partitions.

    Returns
    -------
    user_id, at (UTC), ARRIVED, PLACE, reason (null: counts), row (text), and record: kind, at, item_id, weight, words
    (``column=value`` of the context), event_id, raw (what tells copies of an event apart), registered_at, attributes.
    A registration from before ``since``, or without a time, is at ARRIVED: it is news all the same. Narrow: no shuffle.
    """
    parts: dict[str, Callable[[DataFrame], _Checked]] = {
        "events": partial(_events, config=config, in_kafka=in_kafka),
        "onboarding": partial(_picks, config=config),
        "users": partial(_registrations, config=config, since=since),
    }
    checked = [parts[what](rows) for what, rows in arrived.items()]
    raw = checked[0][1]["raw"]
    kinds = {
        "kind": T.StringType(), "at": T.TimestampType(), "item_id": T.StringType(), "weight": T.DoubleType(),
        "words": T.ArrayType(T.StringType()), "event_id": T.StringType(),
        "raw": checked[0][0].select(raw.alias("raw")).schema["raw"].dataType, "registered_at": T.TimestampType(),
        "attributes": T.ArrayType(T.StringType()),
    }  # fmt: skip

    def of(rows: DataFrame, values: Mapping[str, Column]) -> DataFrame:
        columns = [values.get(name, F.lit(None)).cast(kind).alias(name) for name, kind in kinds.items()]
        late = F.col("at") > F.expr(f"current_timestamp() + {_AHEAD}")
        reason = F.coalesce("reason", F.when(late, F.lit("ahead_of_the_clock")))
        return rows.select("user_id", "at", *_BESIDE, reason.alias("reason"), "row", F.struct(*columns).alias("record"))

    return reduce(DataFrame.unionByName, [of(*one) for one in checked])


def _events(arrived: DataFrame, *, config: Config, in_kafka: bool) -> _Checked:
    log, context = config.events.all_sources["events"], config.events.context
    if in_kafka:
        log = log.model_copy(update={"partition": None})
    rows = with_validity(arrived, log, context, beside=_BESIDE)
    rows = rows.withColumns({"at": F.col("event_at"), "row": F.coalesce("corrupt", F.to_json("raw"))})
    words = [F.concat(F.lit(f"{name}="), F.col(f"context_{k}")) for k, name in enumerate(context)]
    record = {
        "kind": F.lit(EVENT), "at": F.col("at"), "item_id": F.col("item_id"), "weight": F.col("weight"),
        "event_id": F.col("event_id"),
        "raw": F.col("raw") if log.columns.event_id else F.xxhash64(F.to_json("raw", _MICROS)),
    }  # fmt: skip
    return rows, record | ({"words": F.array_compact(F.array(*words))} if words else {})


def _picks(arrived: DataFrame, *, config: Config) -> _Checked:
    assert config.onboarding is not None
    rows = picks_of(_with_row(arrived), config.onboarding, *_BESIDE, "row", "corrupt").withColumnRenamed(
        "event_at", "at"
    )
    rows = _judged(rows, {"missing_item_id": F.col("item_id").isNull(), "unreadable_event_at": F.col("at").isNull()})
    return rows, {"kind": F.lit(PICK), "at": F.col("at"), "item_id": F.col("item_id")}


def _registrations(arrived: DataFrame, *, config: Config, since: date) -> _Checked:
    assert config.users is not None
    rows = users_of(_with_row(arrived), config.users, *_BESIDE, "row", "corrupt")
    is_recent = F.col("registered_at") >= F.lit(since).cast("timestamp")
    rows = _judged(rows.withColumn("at", F.when(is_recent, F.col("registered_at")).otherwise(F.col(ARRIVED))), {})
    known = {name: F.col(name) for name in ("at", "registered_at", "attributes")}
    return rows, {"kind": F.lit(USER)} | known


def _with_row(arrived: DataFrame) -> DataFrame:
    """Add the whole row as text, and what could not be read."""
    names = [name for name in arrived.columns if name not in (CORRUPT, *_BESIDE)]
    corrupt = F.col(CORRUPT) if CORRUPT in arrived.columns else F.lit(None).cast("string")
    whole = F.to_json(F.struct(*(F.col(f"`{name}`") for name in names)))
    return arrived.withColumns({"corrupt": corrupt, "row": F.coalesce(corrupt, whole)})


def _judged(rows: DataFrame, rules: Mapping[str, Column]) -> DataFrame:
    """Say why rows of the sides don't count, by the words that events are judged with."""
    rules = {
        "unparsable_row": F.col("corrupt").isNotNull(),
        "missing_user_id": F.coalesce(F.trim("user_id"), F.lit("")) == "",
        **rules,
        "implausible_event_at": ~is_plausible("at"),
    }
    return rows.withColumn("reason", F.coalesce(*(F.when(holds, F.lit(name)) for name, holds in rules.items())))

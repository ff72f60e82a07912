"""The tables beside the log: users with their attributes, and onboarding picks."""

from collections.abc import Callable
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from userrep.config import Config, EventSource, Onboarding, Source, Users
from userrep.errors import UsageError
from userrep.events.columns import as_text, check_columns, id_text, named
from userrep.events.source import check_events, read_source
from userrep.ids import short_hash


def read_users(spark: SparkSession, users: Users) -> DataFrame:
    """Read the users: user_id, registered_at (UTC; null where unknown), attributes array<string> in configured order.

    Rows without a user id don't count; of several rows of a user, the largest by attributes counts.
    """
    source = read_source(spark, users, what="users")
    columns = users.columns.model_dump(exclude_none=True)
    wanted = {f"columns.{key}": name for key, name in columns.items()}
    check_columns(source, wanted | {f"attributes[{k}]": name for k, name in enumerate(users.attributes)}, "users")
    registered = named(source, users.columns.registered_at) if users.columns.registered_at else F.lit(None)
    attributes = [as_text(source, name) for name in users.attributes]
    return source.select(
        id_text(source, users.columns.user_id).alias("user_id"),
        registered.try_cast("timestamp").alias("registered_at"),
        (F.array(*attributes) if attributes else F.array().cast("array<string>")).alias("attributes"),
    ).where(F.col("user_id").isNotNull())


def read_picks(spark: SparkSession, onboarding: Onboarding) -> DataFrame:
    """Read onboarding picks: user_id, item_id, event_at (UTC); rows that lack one of them don't count."""
    source = read_source(spark, onboarding, what="onboarding")
    columns = onboarding.columns
    check_columns(source, {f"columns.{key}": name for key, name in columns.model_dump().items()}, "onboarding")
    return source.select(
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        named(source, columns.event_at).try_cast("timestamp").alias("event_at"),
    ).dropna()


def sides_fingerprint(spark: SparkSession, config: Config) -> str:
    """Hash which files the users and the picks are in: names, sizes and times. Cost: a listing."""
    return short_hash({what: _files(spark, source) for what, source in _sides(config).items()})


def _sides(config: Config) -> dict[str, Source]:
    sides: dict[str, Source | None] = {"users": config.users, "onboarding": config.onboarding}
    return {what: source for what, source in sides.items() if source is not None}


def _files(spark: SparkSession, source: Source) -> list[list[str]]:
    if source.format in ("delta", "table"):
        return [[path] for path in sorted(read_source(spark, source, what="source").inputFiles())]
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(source.path)
    rows = files.select("path", "length", "modificationTime").collect()
    return sorted([row.path, str(row.length), str(row.modificationTime)] for row in rows)


def check_sources(spark: SparkSession, config: Config) -> None:
    """Look at all configured sources at once, before any work: are they there, with the mapped columns?

    Raises
    ------
    UsageError
        With every fault of every source. Cost: a listing and a schema each.
    """
    faults: list[str] = []

    def look(check: Callable[[], object]) -> None:
        try:
            check()
        except UsageError as error:
            faults.extend(error.faults)

    events, items, users, onboarding = config.events, config.items, config.users, config.onboarding
    for what, log in events.all_sources.items():
        look(partial(_check_log, spark, log, what))
    if items is not None:
        wanted = {f"columns.{key}": name for key, name in items.columns.model_dump(exclude_none=True).items()}
        look(lambda: check_columns(read_source(spark, items, what="items"), wanted, "items"))
    if users is not None:
        look(lambda: read_users(spark, users))
    if onboarding is not None:
        look(lambda: read_picks(spark, onboarding))
    if faults:
        raise UsageError(faults)


def _check_log(spark: SparkSession, log: EventSource, what: str) -> None:
    check_events(read_source(spark, log, what=what), log, what)

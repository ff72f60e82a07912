"""The tables beside the log: users with their attributes, and onboarding picks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from userrep.config import Config, Items, Onboarding, Source, Users
from userrep.errors import UsageError
from userrep.ids import short_hash
from userrep.sources.columns import as_text, check_columns, id_text, named
from userrep.sources.open_log import OpenLog, open_logs
from userrep.sources.source import event_columns, read_source
from userrep.sources.tombstones import read_tombstones
from userrep.store.buckets import power_of_two, user_bucket, user_slice
from userrep.store.schemas import USER_PROFILES
from userrep.store.tables import Tables

_PROFILES_PER_SLICE = 4_000_000


def read_users(spark: SparkSession, users: Users) -> DataFrame:
    """Read the users: user_id, registered_at (UTC; null where unknown), attributes array<string> in configured order.

    Rows without a user id don't count.
    """
    return users_of(read_source(spark, users, what="users"), users).where(F.col("user_id").isNotNull())


def users_of(source: DataFrame, users: Users, *beside: str) -> DataFrame:
    """Map rows to users, those without an id too. ``beside``: columns that are passed on."""
    columns = users.columns.model_dump(exclude_none=True)
    wanted = {f"columns.{key}": name for key, name in columns.items()}
    check_columns(source, wanted | {f"attributes[{k}]": name for k, name in enumerate(users.attributes)}, "users")
    registered = named(source, users.columns.registered_at) if users.columns.registered_at else F.lit(None)
    attributes = [as_text(source, name) for name in users.attributes]
    return source.select(
        id_text(source, users.columns.user_id).alias("user_id"),
        registered.try_cast("timestamp").alias("registered_at"),
        (F.array(*attributes) if attributes else F.array().cast("array<string>")).alias("attributes"),
        *beside,
    )


def read_picks(spark: SparkSession, onboarding: Onboarding) -> DataFrame:
    """Read onboarding picks: user_id, item_id, event_at (UTC); rows that lack one of them don't count."""
    return picks_of(read_source(spark, onboarding, what="onboarding"), onboarding).dropna()


def picks_of(source: DataFrame, onboarding: Onboarding, *beside: str) -> DataFrame:
    """Map rows to picks, those that lack something too. ``beside``: columns that are passed on."""
    columns = onboarding.columns
    check_columns(source, {f"columns.{key}": name for key, name in columns.model_dump().items()}, "onboarding")
    return source.select(
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        named(source, columns.event_at).try_cast("timestamp").alias("event_at"),
        *beside,
    )


class Profiles(NamedTuple):
    """The profiles that a run uses: a version of ``user_profiles``, and the files of users and picks it was made from.

    ``sides_hash`` is taken before these files are read. So if they change in the meantime, what is made from the
    profiles counts as stale. ``version`` is None where neither users nor picks are configured.
    """

    sides_hash: str
    version: int | None


def refresh_profiles(tables: Tables, config: Config) -> Profiles:
    """Bring ``user_profiles`` up to date with the users and the picks, and pin its version.

    Of a user's several rows the earliest registration and the largest attributes count. A run does this once and gives
    the result to all its steps. Cost: a listing; where something has changed, one pass over both tables and one shuffle
    of narrow rows, and the table is replaced.

    Raises
    ------
    UserrepError
        If another run replaces the profiles at the same time.
    """
    sides_hash, num_rows = sides_fingerprint(tables.spark, config), None
    if not _sides(config):
        return Profiles(sides_hash, None)
    columns = [source.model_dump(exclude={"path", "format"}) for source in _sides(config).values()]
    content = short_hash([sides_hash, columns])
    while True:
        version = tables.version(USER_PROFILES)
        stored = tables.read(USER_PROFILES, version=version).select("content_hash").first()
        is_empty = stored is None and num_rows == 0  # then no row names the content
        if is_empty or (stored is not None and stored.content_hash == content):
            return Profiles(sides_hash, version)
        users = read_users(tables.spark, config.users) if config.users else None
        picks = read_picks(tables.spark, config.onboarding) if config.onboarding else None
        rows = read_tombstones(tables).without(profiles_of(users, picks))
        num_rows = rows.count()
        slices = power_of_two(num_rows / _PROFILES_PER_SLICE)
        sliced = rows.withColumns({"user_slice": user_slice(slices), "content_hash": F.lit(content)})
        in_order = sliced.repartition("user_slice").sortWithinPartitions("user_slice", "user_bucket")
        tables.replace(in_order, USER_PROFILES, [{}], since=version)


def profiles_of(users: DataFrame | None, picks: DataFrame | None) -> DataFrame:
    """Bring users and picks together: user_bucket, user_id, registered_at, attributes, pick_items, picked_at.

    One row per user; picks are in the order of time, equal ones once. Cost: one shuffle on user_id each.
    """
    by_user = None
    if users is not None:
        by_user = users.groupBy("user_id").agg(
            F.min("registered_at").alias("registered_at"), F.max("attributes").alias("attributes")
        )
    if picks is not None:
        pick = F.struct(F.unix_micros("event_at").alias("at"), F.col("item_id").alias("item"))
        picked = picks.groupBy("user_id").agg(F.sort_array(F.collect_set(pick)).alias("picks"))
        picked = picked.select("user_id", F.col("picks.item").alias("pick_items"), F.col("picks.at").alias("picked_at"))
        by_user = picked if by_user is None else by_user.join(picked, on="user_id", how="full_outer")
    assert by_user is not None
    absent = {
        "registered_at": "timestamp", "attributes": "array<string>", "pick_items": "array<string>",
        "picked_at": "array<bigint>",
    }  # fmt: skip
    more = {name: F.lit(None).cast(kind) for name, kind in absent.items() if name not in by_user.columns}
    return by_user.withColumns({**more, "user_bucket": user_bucket()})


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


def check_sources(spark: SparkSession, config: Config) -> list[OpenLog]:
    """Look at all configured sources at once, before any work: are they there, with the mapped columns?

    Returns the log's sources, opened. Cost: a listing and a schema each.

    Raises
    ------
    UsageError
        With every fault of every source.
    """
    faults: list[str] = []
    logs: list[OpenLog] = []

    def look(check: Callable[[], object]) -> None:
        try:
            check()
        except UsageError as error:
            faults.extend(error.faults)

    look(lambda: logs.extend(open_logs(spark, config.events)))
    for what, source, wanted in mapped_columns(config):
        if what not in config.events.all_sources:
            look(partial(_check_source, spark, source, wanted, what))
    if faults:
        raise UsageError(faults)
    return logs


def mapped_columns(config: Config) -> list[tuple[str, Source, dict[str, str]]]:
    """Return each source with the section that maps its columns, and these: configuration keys to columns."""

    def columns(section: Items | Users | Onboarding) -> dict[str, str]:
        return {f"columns.{key}": name for key, name in section.columns.model_dump(exclude_none=True).items()}

    def attributes(names: Sequence[str]) -> dict[str, str]:
        return {f"attributes[{k}]": name for k, name in enumerate(names)}

    items, users, onboarding = config.items, config.users, config.onboarding
    found: list[tuple[str, Source, dict[str, str]]]
    found = [(what, log, event_columns(log)) for what, log in config.events.all_sources.items()]
    found += [("items", items, columns(items))] if items is not None else []
    if users is not None:
        found.append(("users", users, columns(users) | attributes(users.attributes)))
        found.append(("evaluation", users, attributes(config.evaluation.attributes)))
    found += [("onboarding", onboarding, columns(onboarding))] if onboarding is not None else []
    return [(what, source, wanted) for what, source, wanted in found if wanted]


def _check_source(spark: SparkSession, source: Source, wanted: dict[str, str], what: str) -> None:
    check_columns(read_source(spark, source, what=source_of(what)), wanted, what)


def source_of(section: str) -> str:
    """Return the source that a section maps columns of: ``evaluation`` has none of its own."""
    return "users" if section == "evaluation" else section

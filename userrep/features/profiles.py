"""User profiles: attributes, registration and onboarding picks, read from the owner's tables and stored."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from userrep.config import Config, Onboarding, Source, Users
from userrep.errors import results_of
from userrep.ids import short_hash
from userrep.sources.columns import as_text, check_columns, configured, event_columns, id_text
from userrep.sources.listing import Listings, driver_lists
from userrep.sources.open_log import (
    ListedFile,
    OpenLog,
    list_plain_files,
    list_table_files,
    open_logs,
    version_of_deletions,
)
from userrep.sources.read import is_missing_id, is_plausible, read_source, utc_time
from userrep.sources.tombstones import read_tombstones
from userrep.store.buckets import power_of_two, user_bucket, user_slice
from userrep.store.schemas import USER_PROFILES
from userrep.store.tables import Tables

_PROFILES_PER_SLICE = 4_000_000
_USERS = "user_id STRING, registered_at TIMESTAMP, attributes ARRAY<STRING>"
_PICKS = "user_id STRING, item_id STRING, event_at TIMESTAMP"


def read_users(spark: SparkSession, users: Users) -> DataFrame:
    """Read the users with the columns of ``users_of``. Rows without a user id are dropped."""
    return users_of(read_source(spark, users, what="users"), users).where(~is_missing_id("user_id"))


def users_of(source: DataFrame, users: Users, *extra_columns: str) -> DataFrame:
    """Map source rows to users: user_id, registered_at, attributes (array<string> in configured order).

    Rows without an id are included. ``registered_at`` is UTC; null if unknown, unreadable or implausible, as in the
    log. ``extra_columns`` are passed through.
    """
    check_columns(source.schema, configured(users.columns) | _attributes(users.attributes), "users")
    registered = users.columns.registered_at
    attributes = [as_text(source, name) for name in users.attributes]
    rows = source.select(
        id_text(source, users.columns.user_id).alias("user_id"),
        (utc_time(source, registered, users.time_zone) if registered else F.lit(None).cast("timestamp")).alias(
            "registered_at"
        ),
        (F.array(*attributes) if attributes else F.array().cast("array<string>")).alias("attributes"),
        *extra_columns,
    )
    return rows.withColumn("registered_at", F.when(is_plausible("registered_at"), F.col("registered_at")))


def read_picks(spark: SparkSession, onboarding: Onboarding) -> DataFrame:
    """Read onboarding picks: user_id, item_id, event_at (UTC). Rows with a missing or implausible value are dropped."""
    picks = picks_of(read_source(spark, onboarding, what="onboarding"), onboarding).dropna()
    return picks.where(~is_missing_id("user_id") & is_plausible("event_at"))


def picks_of(source: DataFrame, onboarding: Onboarding, *extra_columns: str) -> DataFrame:
    """Map source rows to picks, including incomplete rows. ``extra_columns`` are passed through."""
    columns = onboarding.columns
    check_columns(source.schema, configured(columns), "onboarding")
    return source.select(
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        utc_time(source, columns.event_at, onboarding.time_zone).alias("event_at"),
        *extra_columns,
    )


class Profiles(NamedTuple):
    """The user profiles pinned by a run: a version of ``user_profiles`` and the fingerprint of its source files.

    ``profiles_hash`` is computed before the sources are read, so if they change meanwhile, everything built from the
    profiles counts as stale. ``version`` is None if neither users nor picks are configured.
    """

    profiles_hash: str
    version: int | None


def refresh_profiles(tables: Tables, config: Config) -> Profiles:
    """Update ``user_profiles`` if the users or picks have changed, and pin its version.

    If a user has several rows, the earliest registration and the largest attributes win. A run calls this once and
    passes the result to all its steps. Cost: a listing; after a change also one pass over both sources, one shuffle of
    narrow rows and a replacement of the table.

    Raises
    ------
    UserrepError
        If another run replaces the profiles at the same time.
    """
    spark, sources, num_rows = tables.spark, _profile_sources(config), None
    profiles_hash = profiles_fingerprint(spark, config)
    if not sources:
        return Profiles(profiles_hash, None)
    content = short_hash([profiles_hash, [source.meaning for source in sources.values()]])
    while True:
        version = tables.version(USER_PROFILES)
        stored = tables.read(USER_PROFILES, version=version).select("content_hash").first()
        is_empty = stored is None and num_rows == 0  # an empty table has no row that could carry the hash
        if is_empty or (stored is not None and stored.content_hash == content):
            return Profiles(profiles_hash, version)
        users = read_users(spark, config.users) if config.users else spark.createDataFrame([], _USERS)
        picks = read_picks(spark, config.onboarding) if config.onboarding else spark.createDataFrame([], _PICKS)
        rows = read_tombstones(tables).without(profiles_of(users, picks)).cache()
        try:
            num_rows = rows.count()
            slices = power_of_two(num_rows / _PROFILES_PER_SLICE)
            sliced = rows.withColumns({"user_slice": user_slice(slices), "content_hash": F.lit(content)})
            in_order = sliced.repartition("user_slice").sortWithinPartitions("user_slice", "user_bucket")
            tables.replace(in_order, USER_PROFILES, [{}], since=version)
        finally:
            rows.unpersist()


def profiles_of(users: DataFrame, picks: DataFrame) -> DataFrame:
    """Combine users and picks: user_bucket, user_id, registered_at, attributes, pick_items, picked_at.

    One row per user; the columns of a source that lacks the user are null. Picks are in time order, without duplicates.
    Cost: one shuffle of both sources on user_id.
    """
    pick = F.struct(F.unix_micros("event_at").alias("at"), F.col("item_id").alias("item"))
    rows = users.unionByName(picks.select("user_id", pick.alias("pick")), allowMissingColumns=True)
    by_user = rows.groupBy("user_id").agg(
        F.min("registered_at").alias("registered_at"),
        F.max("attributes").alias("attributes"),
        F.sort_array(F.collect_set("pick")).alias("picks"),
    )
    picked = F.when(F.size("picks") > 0, F.col("picks"))
    return by_user.select(
        user_bucket(), "user_id", "registered_at", "attributes",
        picked["item"].alias("pick_items"), picked["at"].alias("picked_at"),
    )  # fmt: skip


def profiles_fingerprint(spark: SparkSession | None, config: Config) -> str:
    """Hash the state of the sources of users and picks. Cost: a listing.

    Their files by name, size and time, and the versions of Delta tables with deletion vectors. ``spark`` None: see
    ``fingerprint_without_spark``.
    """
    return short_hash({what: _files(spark, source, what) for what, source in _profile_sources(config).items()})


def fingerprint_without_spark(config: Config) -> str | None:
    """Return ``profiles_fingerprint``, or None if only Spark can list the users or picks."""
    sources = _profile_sources(config).values()
    is_listed_here = all(s.format not in ("delta", "table") and driver_lists(s.path) for s in sources)
    return profiles_fingerprint(None, config) if is_listed_here else None


def _profile_sources(config: Config) -> dict[str, Users | Onboarding]:
    sources = {"users": config.users, "onboarding": config.onboarding}
    return {what: source for what, source in sources.items() if source is not None}


def _files(spark: SparkSession | None, source: Source, what: str) -> list[list[str]]:
    """Return the files as Spark lists them; of a table whose files it does not list, a checksum of the rows."""
    if source.format in ("delta", "table"):
        assert spark is not None
        rows = read_source(spark, source, what=what)
        names = sorted(rows.inputFiles())
        if source.format == "delta":
            described = [[name] for name in names]
        elif names and all("." in name.rpartition("/")[2] for name in names):
            described = _described(list_table_files(spark, names))  # files of other tables than Delta's may be replaced
        else:  # views and tables of other systems have no files here, and tables of Hive only a folder
            return [[_checksum(rows)]]
        version = version_of_deletions(spark, source)
        return [*described, *([[f"version {version}"]] if version else [])]
    return _described(list_plain_files(spark, source, what, Listings()))


def _described(files: Sequence[ListedFile]) -> list[list[str]]:
    return sorted([file.path, str(file.size), str(file.modified_at)] for file in files)


def _checksum(rows: DataFrame) -> str:
    """Return the number of rows and a checksum. Cost: one pass."""
    hashes = rows.select(F.xxhash64(F.to_json(F.struct("*"))).cast("decimal(38,0)").alias("hash"))
    num_rows, total = hashes.agg(F.count("*"), F.sum("hash")).first()  # type: ignore[misc]
    return f"{num_rows} rows, checksum {total}"


def check_sources(spark: SparkSession, config: Config, listings: Listings | None = None) -> list[OpenLog]:
    """Check that all configured sources exist and have their mapped columns, before any work.

    Returns the log's sources, opened. ``listings``: those of the checks before Spark, so that the log is listed once.
    Cost: one listing and one schema per source.

    Raises
    ------
    UsageError
        With every fault of every source.
    """
    checks: list[Callable[[], Any]] = [partial(open_logs, spark, config.events, listings)]
    not_of_log = (mapped for mapped in mapped_columns(config) if mapped[0] not in config.events.all_sources)
    checks += [partial(_check_source, spark, *mapped) for mapped in not_of_log]
    logs: list[OpenLog] = results_of(checks)[0]
    return logs


def mapped_columns(config: Config) -> list[tuple[str, Source, dict[str, str]]]:
    """Return (section, source, columns by configuration key) for each section that maps columns."""
    items, users, onboarding = config.items, config.users, config.onboarding
    logs = config.events.all_sources.items()
    sections: list[tuple[str, Source, dict[str, str]]] = [(name, log, event_columns(log)) for name, log in logs]
    if items is not None:
        sections.append(("items", items, configured(items.columns) | _attributes(items.categories, "categories")))
    if users is not None:
        attributes = _attributes(users.attributes) | _attributes(users.protected, "protected")
        sections.append(("users", users, configured(users.columns) | attributes))
        sections.append(("evaluation", users, _attributes(config.evaluation.attributes)))
    sections += [("onboarding", onboarding, configured(onboarding.columns))] if onboarding is not None else []
    return [entry for entry in sections if entry[2]]


def _attributes(names: Sequence[str], key: str = "attributes") -> dict[str, str]:
    return {f"{key}[{k}]": name for k, name in enumerate(names)}


def _check_source(spark: SparkSession, section: str, source: Source, columns: dict[str, str]) -> None:
    check_columns(read_source(spark, source, what=source_of(section)).schema, columns, section)


def source_of(section: str) -> str:
    """Return the section that names a section's source: ``evaluation`` maps columns of ``users``."""
    return "users" if section == "evaluation" else section

"""Generator of event logs of any size, with planted user tastes and the faults of real logs.

Spark, or for small logs this process, generates the log in one pass over blocks of users. The rows depend only on the
specification, never on the number of partitions.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession

from userrep.spark.session import shuffle_partitions
from userrep.store.arrow import listed
from userrep.store.filesystem import delete_folder, file_system
from userrep.synthetic.catalog import NEVER, Catalog
from userrep.synthetic.draws import Ints, keys_of, uniform
from userrep.synthetic.log_spec import LogSpec
from userrep.synthetic.planted import DAY_MS, Population
from userrep.utc import day_number

__all__ = ["LogSpec", "generate_log", "generate_small_log", "log_tables"]

HEAVY_USER = "u_heavy"
EVENT_TYPES = ["play", "save", "skip"]
DEVICES = ["phone", "desktop", "tv"]
COUNTRIES = ["SE", "DE", "BR", "US", "IN", "JP"]
AGE_BANDS = ["16-24", "25-34", "35-44", "45-54", "55+"]

GENRES = {
    "blues": "river delta train whiskey crossroads levee juke bottleneck mojo hollow",
    "techno": "pulse warehouse modular voltage strobe circuit acid kick sequence machine",
    "classical": "sonata nocturne prelude quartet adagio fugue minuet etude concerto rondo",
    "metal": "iron blood throne wrath hammer crypt doom serpent ashes war",
    "jazz": "swing bop brass quintet blue standard stride modal uptown saxophone",
    "folk": "meadow fiddle harvest ballad shepherd hearth oak willow sailor lantern",
    "hiphop": "block cypher hustle mic crown flow sample boulevard vinyl bars",
    "ambient": "drift haze tide glacier mist still horizon orbit aurora slow",
    "punk": "riot gutter spit noise basement safety pin anarchy brat sirens",
    "reggae": "roots dub island irie lion yard babylon ital echo sunshine",
    "country": "truck porch rodeo gravel highway bourbon dust prairie boots tailgate",
    "pop": "heart summer dance kiss tonight sugar neon crush radio forever",
}
NOISE_WORDS = (
    "midnight golden little broken lost silver empty wild quiet distant burning second hidden paper lonely "
    "electric winter morning last secret hollow velvet northern open"
)

EVENTS = (
    "event_id string, user_id string, item_id string, event_at timestamp, event_type string, weight double, "
    "device string, ingest_date date"
)
ITEMS = "item_id string, title string, genre string, born_on date, died_on date"
USERS = "user_id string, registered_at timestamp, country string, age_band string"
ONBOARDING = "user_id string, item_id string, picked_at timestamp"
TRUTH = "user_id string, taste array<float>, churn_rate double"

_Columns = Callable[[LogSpec, Catalog, int], dict[str, pa.Array]]

_UTC = pa.timestamp("us", tz="UTC")
_BLOCKS_PER_TASK = 32


def generate_log(spark: SparkSession, spec: LogSpec, out: str) -> None:
    """Write the log as Parquet below ``out``: ``events``, ``items``, ``users``, ``onboarding``, ``truth``.

    Overwrites existing tables. The same specification gives the same rows. The tables are those of ``log_tables``;
    ``events`` is partitioned by ``ingest_date``. Cost: one pass and one shuffle of the events on ``ingest_date``, so
    that each day is one file. Memory per task: one block of users, or one day of the heavy user.
    """
    for name, table in log_tables(spark, spec).items():
        if name == "events":
            # without a number, Spark would join the days of a small log in one task
            num_tasks = min(spec.num_days, shuffle_partitions(spark))
            table.repartition(num_tasks, "ingest_date").write.partitionBy("ingest_date").parquet(
                f"{out}/{name}", mode="overwrite"
            )
        else:
            table.write.parquet(f"{out}/{name}", mode="overwrite")


def generate_small_log(spec: LogSpec, out: str) -> None:
    """Write the same rows as ``generate_log`` without Spark: for logs that fit in memory, about 200 bytes per event."""
    catalog = Catalog(spec)
    for name, (columns_of, size, _) in _tables(spec).items():
        blocks = [pa.table(columns_of(spec, catalog, block)) for block in range(size)]
        by_day = ["ingest_date"] if name == "events" else []
        delete_folder(f"{out}/{name}")
        filesystem, folder = file_system(f"{out}/{name}")
        ds.write_dataset(
            pa.concat_tables(blocks), folder, filesystem=filesystem, format="parquet", partitioning=by_day,
            partitioning_flavor="hive", max_partitions=spec.num_days + 3,  # rows arrive up to three days late
        )  # fmt: skip


def log_tables(spark: SparkSession, spec: LogSpec) -> dict[str, DataFrame]:
    """Return the log's tables as lazy DataFrames.

    Returns
    -------
    events : one row per arrival of an event: event_id; user_id; item_id; event_at (UTC); event_type (play, save, skip);
        weight (minutes played, 1 for a save); device (phone, desktop, tv); ingest_date, the UTC day of arrival: the
        event's day, or for late rows one to three days later, possibly after the log's end. A duplicate is a second row
        equal in every column. A malformed row has one of: null user_id, null item_id, null event_at, event_at in 1970,
        negative weight, NaN weight; its ingest_date is correct.
    items : one row per item: item_id; title (words of its genre and others); genre; sold on ``[born_on, died_on)``,
        died_on null for items that are sold forever.
    users : one row per user: user_id; registered_at (UTC; up to a year before the log, for 30 % of users during it);
        country and age_band, both correlated with the strongest taste at registration.
    onboarding : one row per user and picked item: user_id; item_id; picked_at (UTC), within a minute after
        registered_at. 15 % of users pick nothing, the others up to 5 items by taste.
    truth : one row per user, for tests only: user_id; taste (shares of ``num_tastes`` tastes on the log's last day, sum
        1); churn_rate, the planted probability of no event in the 7 days after the log, given that taste and the last
        visit.

    Cost: no shuffle; each table repeats the part of the simulation that it needs.
    """

    def table(columns_of: _Columns, size: int, schema: str) -> DataFrame:
        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            catalog = Catalog(spec)
            for block in (block for batch in batches for block in batch.column(0).to_pylist()):
                yield pa.RecordBatch.from_pydict(columns_of(spec, catalog, block))

        return spark.range(0, size, 1, -(-size // _BLOCKS_PER_TASK)).mapInArrow(run, schema)

    return {name: table(*parts) for name, parts in _tables(spec).items()}


def _tables(spec: LogSpec) -> dict[str, tuple[_Columns, int, str]]:
    """Return each table's function from a block's number to its columns, the number of blocks, and the schema."""
    heavy_days = spec.num_days if spec.has_heavy_user else 0
    return {
        "events": (_events, spec.num_blocks + heavy_days, EVENTS),
        "items": (_items, 1, ITEMS),
        "users": (_users, spec.num_blocks, USERS),
        "onboarding": (_onboarding, spec.num_blocks, ONBOARDING),
        "truth": (_truth, spec.num_blocks, TRUTH),
    }


def _population(spec: LogSpec, block: int) -> Population:
    first = block * spec.users_per_block
    return Population(spec, np.arange(first, min(first + spec.users_per_block, spec.num_users), dtype=np.int64))


def _events(spec: LogSpec, catalog: Catalog, block: int) -> dict[str, pa.Array]:
    """Return the events of a block of users; blocks past the last one are days of the heavy user."""
    if block < spec.num_blocks:
        population = _population(spec, block)
        rows, days, slots = population.sessions()
    else:
        population = Population(spec, np.zeros(1, dtype=np.int64))
        slots = np.arange(spec.heavy_sessions_per_day, dtype=np.int64)
        rows, days = np.zeros_like(slots), np.full_like(slots, block - spec.num_blocks)
    events = population.events(catalog, rows, days, slots)

    copies = 1 + (uniform(events["keys"], "duplicate") < spec.duplicate_share)
    events = {name: np.repeat(values, copies) for name, values in events.items()}
    keys = events["keys"]
    fault = np.floor(6 * uniform(keys, "malformed kind"))
    fault[uniform(keys, "malformed") >= spec.malformed_share] = -1
    delay = np.where(uniform(keys, "late") < spec.late_share, np.ceil(3 * uniform(keys, "delay")), 0).astype(np.int64)
    event_ms = _epoch_ms(spec, events["day"] * DAY_MS) * (fault != 3) + events["clock_ms"]
    weight = np.select([fault == 4, fault == 5], [-1 - events["weight"], np.nan], events["weight"])
    parts = [pa.array(events[name]).cast(pa.string()) for name in ("user", "day", "serial")]
    return {
        "event_id": pc.binary_join_element_wise("e", *parts, "-"),
        "user_id": _null_where(_user_ids(events["user"], events["is_heavy"]), fault == 0),
        "item_id": _null_where(_item_ids(events["item"]), fault == 1),
        "event_at": _null_where(_timestamps(event_ms), fault == 2),
        "event_type": pa.array(EVENT_TYPES).take(pa.array(events["event_type"])),
        "weight": pa.array(weight, from_pandas=False),
        "device": pa.array(DEVICES).take(pa.array(events["device"])),
        "ingest_date": _dates(spec, events["day"] + delay),
    }


def _items(spec: LogSpec, catalog: Catalog, _block: int) -> dict[str, pa.Array]:
    words = pa.array([word for text in GENRES.values() for word in text.split()[:9]])
    noise = pa.array(NOISE_WORDS.split())

    def indices(purpose: str, start: Ints | int, size: int) -> pa.Array:
        return pa.array(start + (size * uniform(catalog.keys, purpose)).astype(np.int64))

    genre_words = [words.take(indices(f"word {i}", 9 * catalog.genre, 9)) for i in (1, 2)]
    noise_words = [noise.take(indices(f"noise {i}", 0, len(noise))) for i in (1, 2)]
    second = pc.if_else(pa.array(uniform(catalog.keys, "noisy") < 0.3), noise_words[1], genre_words[1])
    return {
        "item_id": _item_ids(np.arange(spec.num_items)),
        "title": pc.binary_join_element_wise(noise_words[0], genre_words[0], second, " "),
        "genre": pa.array(list(GENRES)).take(pa.array(catalog.genre)),
        "born_on": _dates(spec, catalog.born),
        "died_on": _null_where(_dates(spec, np.where(catalog.died == NEVER, 0, catalog.died)), catalog.died == NEVER),
    }


def _users(spec: LogSpec, _catalog: Catalog, block: int) -> dict[str, pa.Array]:
    users = _population(spec, block)
    strongest = np.argmax(users.taste_on(np.arange(len(users.numbers)), users.registered_day), axis=1)

    def correlated(values: list[str], purpose: str, typical_index: Ints, share: float) -> pa.Array:
        random_index = np.floor(len(values) * uniform(users.keys, purpose)).astype(np.int64)
        return pa.array(values).take(
            pa.array(np.where(uniform(users.keys, f"{purpose} leans") < share, typical_index, random_index))
        )

    return {
        "user_id": _user_ids(users.numbers, users.is_heavy),
        "registered_at": _timestamps(_epoch_ms(spec, users.registered_ms)),
        "country": correlated(COUNTRIES, "country", strongest % len(COUNTRIES), 0.6),
        "age_band": correlated(AGE_BANDS, "age band", strongest * len(AGE_BANDS) // spec.num_tastes, 0.5),
    }


def _onboarding(spec: LogSpec, catalog: Catalog, block: int) -> dict[str, pa.Array]:
    users = _population(spec, block)
    rows = np.repeat(np.flatnonzero(uniform(users.keys, "onboards") < 0.85), 5)
    pick = np.arange(len(rows)) % 5
    days = users.registered_day[rows]
    items, _ = users.drawn_items(users.taste_on(rows, days), catalog, keys_of(users.keys[rows], pick, 5), days)
    _, first_index = np.unique(rows * spec.num_items + items, return_index=True)
    rows, pick, items = rows[first_index], pick[first_index], items[first_index]
    return {
        "user_id": _user_ids(users.numbers[rows], users.is_heavy[rows]),
        "item_id": _item_ids(items),
        "picked_at": _timestamps(_epoch_ms(spec, users.registered_ms[rows] + 10_000 * (1 + pick))),
    }


def _truth(spec: LogSpec, _catalog: Catalog, block: int) -> dict[str, pa.Array]:
    users = _population(spec, block)
    return {
        "user_id": _user_ids(users.numbers, users.is_heavy),
        "taste": listed(users.tastes[:, -1].astype(np.float32)),
        "churn_rate": pa.array(users.churn_rate()),
    }


def _user_ids(numbers: Ints, is_heavy: np.ndarray) -> pa.Array:
    ids = pc.binary_join_element_wise("u", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0"), "")
    return pc.if_else(pa.array(is_heavy), HEAVY_USER, ids)


def _item_ids(numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise("i", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 6, "0"), "")


def _epoch_ms(spec: LogSpec, log_ms: Ints) -> Ints:
    return log_ms + day_number(spec.first_day) * DAY_MS


def _timestamps(epoch_ms: Ints) -> pa.Array:
    return pa.array(epoch_ms * 1000).cast(_UTC)


def _dates(spec: LogSpec, days: Ints) -> pa.Array:
    return pa.array((days + day_number(spec.first_day)).astype(np.int32)).cast(pa.date32())


def _null_where(values: pa.Array, is_null: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(is_null), pa.scalar(None, values.type), values)

"""Features: against plain Python on random logs, the same bits however rows are cut, no look into the future."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pyspark.sql import SparkSession

from tests.builders import at, config_of, event, write_rows
from userrep.config import Config
from userrep.events.inventory import take_inventory
from userrep.events.tiles import build_tiles
from userrep.features import pooling
from userrep.features.accumulate import EVENT, PICK, PROFILE, ItemMatrix
from userrep.features.build import build_features, feature_sets, read_features, stale_features
from userrep.features.spec import FeatureSpec
from userrep.items.versions import train_versions, versions_of
from userrep.tables import Tables

SPEC = FeatureSpec(
    windows_days=[1, 3],
    modalities={"behaviour": 2, "content": 3},
    onboarding=True,
    registered_at=True,
    attributes=["country"],
    context=["device"],
)
AS_OF = date(2024, 3, 10)
DAY = (AS_OF - date(1970, 1, 1)).days
NUM_ITEMS = 6
PARTS = ("num_night", "num_morning", "num_afternoon", "num_evening")


def _matrix() -> ItemMatrix:
    random = np.random.default_rng(5)
    vectors_IE = np.rint(random.standard_normal((NUM_ITEMS, 5)) * 2**16) / 2**16
    has_IM = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1]], float)
    vectors_IE[:, :2] *= has_IM[:, :1]
    vectors_IE[:, 2:] *= has_IM[:, 1:]
    return ItemMatrix(vectors_IE, has_IM, float(np.abs(vectors_IE).max()))


def _row(
    user: str, kind: int, age: int, item: int | None, weight: float, hour: int, **more: object
) -> dict[str, object]:
    """Build a row of the shuffle, ``age`` days before the as-of date."""
    is_event = kind == EVENT
    return {
        "user_id": user,
        "kind": kind,
        "day": DAY - age,
        "item_index": item,
        "weight": weight,
        "num_events": more.get("num_events", 1) if is_event else 0,
        "at_us": (DAY - age) * 86_400_000_000 + hour * 3_600_000_000,
        **{part: (more.get("num_events", 1) if is_event and hour // 6 == k else None) for k, part in enumerate(PARTS)},
        "num_by_context": [(f"device={more['device']}", more.get("num_events", 1))] if is_event else None,
        "attributes": [more["country"]] if kind == PROFILE else None,
    }


rows_of_users = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from([EVENT] * 6 + [PICK, PROFILE]),
        st.integers(-1, 5),
        st.one_of(st.none(), st.integers(0, NUM_ITEMS - 1)),
        st.integers(0, 2000).map(lambda n: n / 256),
        st.integers(0, 23),
        st.integers(1, 4),
        st.sampled_from(["tv", "phone"]),
        st.sampled_from(["de", "se", None]),
    ),
    min_size=1,
    max_size=40,
)


def _built(drawn: list[tuple]) -> list[dict]:  # type: ignore[type-arg]
    rows = [
        _row(user, kind, age, item, {PICK: 1.0, EVENT: weight}.get(kind, 0.0), hour,
             num_events=n, device=device, country=country)
        for user, kind, age, item, weight, hour, n, device, country in drawn
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (r["user_id"], r["kind"], str(r["attributes"]), r["at_us"]))


def _features(rows: list[dict], monkeypatch: pytest.MonkeyPatch, chunk: int) -> dict[str, dict]:  # type: ignore[type-arg]
    """Run the pooler over the rows, one batch a row, gathered to chunks of ``chunk`` rows."""
    schema = pa.schema(
        [("user_id", pa.string()), ("kind", pa.int32()), ("day", pa.int32()), ("item_index", pa.int32()),
         ("weight", pa.float64()), ("num_events", pa.int64()), ("at_us", pa.int64()),
         *((part, pa.int64()) for part in PARTS), ("num_by_context", pa.map_(pa.string(), pa.int64())),
         ("attributes", pa.list_(pa.string()))]
    )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    with monkeypatch.context() as patch:
        patch.setattr(pooling, "_CHUNK_ROWS", chunk)
        patch.setattr(pooling, "item_matrix", lambda files, spec: _matrix())
        pool = pooling._pooler(SPEC, [(AS_OF, pooling.VectorFiles(NUM_ITEMS, ()))])
        found = [row for batch in pool(table.to_batches(max_chunksize=1)) for row in batch.to_pylist()]
    assert len({row["user_id"] for row in found}) == len(found)
    return {row["user_id"]: row for row in found}


def _expected(rows: list[dict]) -> dict[str, dict]:  # type: ignore[type-arg]
    """Compute the same row by row, in plain Python."""
    matrix, found = _matrix(), {}
    for user in sorted({row["user_id"] for row in rows}):
        mine = [row for row in rows if row["user_id"] == user and row["day"] < DAY]
        events = [row for row in mine if row["kind"] == EVENT and row["day"] >= DAY - 3]
        picks = [row for row in mine if row["kind"] == PICK]
        profiles = [row for row in rows if row["user_id"] == user and row["kind"] == PROFILE]
        registered = [row["at_us"] for row in mine if row["kind"] == PROFILE]
        if not (events or picks or registered):
            continue
        want: dict[str, object] = {}
        for window, used in ((1, None), (3, None), (None, picks)):
            inside = [row for row in events if row["day"] >= DAY - window] if window else used
            for m, (modality, part) in enumerate({"behaviour": slice(0, 2), "content": slice(2, 5)}.items()):
                with_vector = [r for r in inside if r["item_index"] is not None and matrix.has_IM[r["item_index"], m]]
                weight = sum(r["weight"] for r in with_vector)
                name = f"{modality}_{window}d" if window else f"{modality}_onboarding"
                total = sum(
                    (r["weight"] * matrix.vectors_IE[r["item_index"], part] for r in with_vector),
                    np.zeros(3)[: part.stop - part.start],
                )
                want[name] = (total / weight if weight else np.zeros_like(total)).astype(np.float32).tolist()
                want[f"has_{name}"] = weight > 0
            if window:
                want[f"num_events_{window}d"] = sum(r["num_events"] for r in inside)
                want[f"weight_{window}d"] = sum(r["weight"] for r in inside)
                want[f"num_active_days_{window}d"] = len({r["day"] for r in inside})
        midnight = DAY * 86_400_000_000
        want["days_since_last_event"] = (
            (midnight - max(r["at_us"] for r in events)) / 86_400_000_000 if events else None
        )
        want["days_since_first_event"] = float(DAY - min(r["day"] for r in events)) if events else None
        want["days_since_registration"] = (midnight - max(registered)) / 86_400_000_000 if registered else None
        want["attribute_country"] = profiles[-1]["attributes"][0] if profiles else None
        devices: dict[str, int] = {}
        for row in events:
            for key, count in row["num_by_context"]:
                devices[key] = devices.get(key, 0) + count
        want["num_by_context_3d"] = sorted(devices.items())
        found[user] = want
    return found


@given(rows_of_users)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_features_equal_a_plain_recomputation_and_do_not_depend_on_chunks(
    monkeypatch: pytest.MonkeyPatch,
    drawn: list[tuple],  # type: ignore[type-arg]
) -> None:
    rows = _built(drawn)
    found, expected = _features(rows, monkeypatch, 1000), _expected(rows)
    assert found.keys() == expected.keys()
    for user, want in expected.items():
        for name, value in want.items():
            assert found[user][name] == value, (user, name)
    for chunk in (1, 3):
        assert _features(rows, monkeypatch, chunk) == found


def test_shares_of_the_day_and_of_the_week_add_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _built([("a", EVENT, 1, 0, 1.0, 7, 3, "tv", None), ("a", EVENT, 2, 0, 1.0, 20, 1, "tv", None)])
    found = _features(rows, monkeypatch, 10)["a"]
    assert found["part_of_day_3d"] == [0, 0.75, 0, 0.25]
    saturday, friday = 5, 4  # 2024-03-09 and 2024-03-08
    assert (found["weekday_3d"][saturday], found["weekday_3d"][friday]) == (0.75, 0.25)


def test_a_weight_too_large_for_exact_sums_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _built([("a", EVENT, 1, 0, 2.0**40, 7, 1, "tv", None), ("b", EVENT, 1, 0, 1.0, 7, 1, "tv", None)])
    found = _features(rows, monkeypatch, 10)
    assert (found["a"]["is_exact"], found["b"]["is_exact"]) == (False, True)


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Config]:
    """A log of 20 users, 8 items and 40 days, one user in nearly half of all rows, with vectors given by the owner."""
    folder = tmp_path_factory.mktemp("shop")
    random = np.random.default_rng(1)
    rows = [
        event(
            "heavy" if random.random() < 0.4 else f"u{random.integers(20)}",
            f"i{random.integers(8)}",
            str(datetime(2024, 3, 1) + timedelta(minutes=int(random.integers(40 * 1440)))),
            score=float(random.integers(1, 900)) / 256,
        )
        for _ in range(1500)
    ]
    rows += [
        event("late", "i1", "2024-03-20 00:00:00", score=1.0),
        event("early", "i1", "2024-03-19 23:59:59", score=1.0),
    ]
    write_rows(folder / "events" / "part.parquet", rows)
    items = [{"item_id": f"i{k}", "vector": random.standard_normal(3).tolist() if k < 7 else None} for k in range(8)]
    write_rows(folder / "items.parquet", items)
    users = [
        {"user_id": "quiet", "since": at("2024-03-05"), "country": "se"},
        {"user_id": "u1", "since": None, "country": "de"},
    ]
    write_rows(folder / "users.parquet", users)
    config = config_of(
        folder,
        events={"columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "weight": "score"}},
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vector"}},
        users={
            "path": str(folder / "users.parquet"),
            "columns": {"user_id": "user_id", "registered_at": "since"},
            "attributes": ["country"],
        },
        item_vectors={"given": {"kind": "vector", "dim": 3}},
    )  # fmt: skip
    tables = Tables.of(config, spark)
    inventory = take_inventory(tables, config.events)
    build_tiles(tables, config, inventory, before=inventory.last_day)
    versions = versions_of(tables, config, anchor=date(2024, 3, 20))
    train_versions(tables, config, versions, versions.missing([date(2024, 3, 20)]), lambda _: None)
    build_features(tables, config, versions_of(tables, config, anchor=AS_OF), [date(2024, 3, 20)])
    return tables, config


def _rows(tables: Tables, config: Config) -> list[dict]:  # type: ignore[type-arg]
    versions = versions_of(tables, config, anchor=AS_OF)
    rows = read_features(tables, config, versions.lineage_id, [date(2024, 3, 20)]).orderBy("user_id").collect()
    return [row.asDict() for row in rows]


def test_an_event_on_the_as_of_day_is_not_seen_and_one_a_second_before_is(shop: tuple[Tables, Config]) -> None:
    users = {row["user_id"]: row for row in _rows(*shop)}
    assert "late" not in users
    assert users["early"]["num_events_2d"] == 1
    assert users["early"]["days_since_last_event"] == pytest.approx(1 / 86400)


def test_a_registered_user_without_events_has_a_row(shop: tuple[Tables, Config]) -> None:
    quiet = next(row for row in _rows(*shop) if row["user_id"] == "quiet")
    assert (quiet["days_since_registration"], quiet["attribute_country"]) == (15.0, "se")
    assert (quiet["has_given_7d"], quiet["given_7d"], quiet["days_since_last_event"]) == (False, [0.0, 0.0, 0.0], None)


def test_features_equal_a_recomputation_from_the_raw_log(shop: tuple[Tables, Config], spark: SparkSession) -> None:
    tables, config = shop
    log = (
        spark.read.parquet(config.events.path).where("event_at < '2024-03-20' AND event_at >= '2024-03-13'").toPandas()
    )
    log = log.drop_duplicates()
    vectors = {r.item_id: np.asarray(r.vector) for r in spark.read.parquet(config.items.path).collect() if r.vector}
    vectors = {item: np.rint(vector * 2**16) / 2**16 for item, vector in vectors.items()}
    for row in _rows(tables, config):
        mine = log[log.user_id == row["user_id"]]
        assert row["num_events_7d"] == len(mine)
        known = mine[mine.item_id.isin(vectors)]
        assert row["has_given_7d"] == (len(known) > 0)
        if len(known):
            mean = sum(w * vectors[i] for w, i in zip(known.score, known.item_id, strict=True)) / known.score.sum()
            assert_allclose(row["given_7d"], mean, rtol=1e-6, atol=1e-7, equal_nan=False)


def test_features_have_the_same_bits_at_1_and_7_partitions(shop: tuple[Tables, Config], spark: SparkSession) -> None:
    tables, config = shop
    versions, before = versions_of(tables, config, anchor=AS_OF), spark.conf.get("spark.sql.shuffle.partitions")
    found = []
    try:
        for partitions in ("1", "7"):
            spark.conf.set("spark.sql.shuffle.partitions", partitions)
            spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
            build_features(tables, config, versions, [date(2024, 3, 20)])
            found.append(_rows(tables, config))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
        spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")
    assert found[0] == found[1]


def test_features_are_stale_when_the_log_or_the_users_change(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    versions, day = versions_of(tables, config, anchor=AS_OF), date(2024, 3, 20)
    assert stale_features(tables, config, versions, [day], fresh_sides=[day]) == {}
    assert config.users is not None
    write_rows(Path(config.users.path), [{"user_id": "quiet", "since": at("2024-03-05"), "country": "no"}])
    assert stale_features(tables, config, versions, [day]) == {}
    assert stale_features(tables, config, versions, [day], fresh_sides=[day]) == {day: "users or picks changed"}
    assert stale_features(tables, config, versions, [date(2024, 3, 21)]) == {date(2024, 3, 21): "not built yet"}


def test_the_ledger_counts_what_was_built(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    built = feature_sets(tables, versions_of(tables, config, anchor=AS_OF).lineage_id)[date(2024, 3, 20)]
    assert (built.num_users, built.num_inexact) == (len(_rows(tables, config)), 0)

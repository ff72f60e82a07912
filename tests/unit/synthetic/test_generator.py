"""The generated log holds what it says it plants, and nothing about it depends on how Spark cuts the work."""

import runpy
import sys
from datetime import date
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import lit, struct, to_json
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score

from userrep.synthetic import generator
from userrep.synthetic.generator import GENRES, LogSpec, generate_log, generate_small_log, log_tables

pytestmark = pytest.mark.default

SPEC = LogSpec(num_users=1200, num_items=400, num_days=60)
SMALL = LogSpec(num_users=300, num_items=80, num_days=40)
START = pd.Timestamp(SPEC.first_day, tz="UTC")
JOB = Path(__file__).parents[3] / "jobs" / "generate_events.py"


@pytest.fixture(scope="module")
def log(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    out = str(tmp_path_factory.mktemp("log"))
    generate_log(spark, SPEC, out)
    names = ("events", "items", "users", "onboarding", "truth")
    return {name: spark.read.parquet(f"{out}/{name}").toPandas().pipe(_in_utc) for name in names}


@pytest.fixture(scope="module")
def events(log: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The log's sound rows, once each, with the number of their day and their item's genre."""
    rows = log["events"].drop_duplicates("event_id")
    rows = rows[~_is_malformed(rows)].merge(log["items"], on="item_id", how="left", validate="many_to_one")
    return rows.assign(day=(rows.event_at - START).dt.days)


def _in_utc(table: pd.DataFrame) -> pd.DataFrame:
    naive = [name for name in table if str(table[name].dtype).startswith("datetime64")]
    return table.assign(**{str(name): table[name].dt.tz_localize("UTC") for name in naive})


def _is_malformed(rows: pd.DataFrame) -> pd.Series:
    sound_time = rows.event_at.dt.year == SPEC.first_day.year
    return rows.user_id.isna() | rows.item_id.isna() | ~sound_time | ~(rows.weight >= 0)


def _rows(spark: SparkSession, spec: LogSpec) -> dict[str, list[str]]:
    """Every row of every table as sorted text, in one Spark job."""
    tables = log_tables(spark, spec)
    as_text = [table.select(lit(name), to_json(struct("*"))) for name, table in tables.items()]
    rows: dict[str, list[str]] = {name: [] for name in tables}
    for name, text in sorted(reduce(DataFrame.union, as_text).collect()):
        rows[name].append(text)
    return rows


def _returns(log: dict[str, pd.DataFrame], events: pd.DataFrame, as_of: int) -> tuple[np.ndarray, ...]:
    """Recency (days), last taste, and whether there is an event within 7 days, of users seen before ``as_of``."""
    last = events[events.day < as_of].groupby("user_id").day.max().drop("u_heavy")
    returned = set(events[(events.day >= as_of) & (events.day < as_of + 7)].user_id)
    taste = np.stack(log["truth"].set_index("user_id").taste.loc[last.index])
    return as_of - last.to_numpy(), taste, last.index.isin(returned)


def test_the_log_is_the_same_at_2_and_8_partitions(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    assert log_tables(spark, SMALL)["events"].rdd.getNumPartitions() == 2
    two = _rows(spark, SMALL)
    monkeypatch.setattr(generator, "_BLOCKS_PER_TASK", 6)
    assert log_tables(spark, SMALL)["events"].rdd.getNumPartitions() == 8
    assert SMALL.num_blocks > 2
    assert len(two["events"]) > 4000
    assert _rows(spark, SMALL) == two


def test_without_spark_the_log_has_the_same_rows_and_types(spark: SparkSession, tmp_path: Path) -> None:
    out = str(tmp_path)
    for _ in range(2):  # the second replaces the first
        generate_small_log(SMALL, out)
    for name, expected in log_tables(spark, SMALL).items():
        rows = spark.read.parquet(f"{out}/{name}")
        assert dict(rows.dtypes) == dict(expected.dtypes)
        same = rows.select(*expected.columns)
        assert same.count() == expected.count()
        assert same.exceptAll(expected).isEmpty()
    assert len(list(tmp_path.glob("events/*/*"))) == len(list(tmp_path.glob("events/ingest_date=*")))


def test_another_seed_makes_another_log(spark: SparkSession) -> None:
    small = LogSpec(num_users=20, num_items=20, num_days=5)
    other = LogSpec(num_users=20, num_items=20, num_days=5, seed=8)
    ours, theirs = (log_tables(spark, spec)["events"].collect() for spec in (small, other))
    assert not set(ours) & set(theirs)


def test_the_smallest_log_has_its_tables(spark: SparkSession) -> None:
    spec = LogSpec(2, 2, num_days=1, num_genres=2, num_tastes=2, events_per_user_day=0.01, heavy_user_share=0)
    rows = _rows(spark, spec)
    assert {name: len(rows[name]) for name in ("items", "users", "truth")} == {"items": 2, "users": 2, "truth": 2}


def test_every_day_of_the_span_has_events_and_no_other(events: pd.DataFrame) -> None:
    assert sorted(events.day.unique()) == list(range(SPEC.num_days))
    assert events.day.value_counts().min() > 0.3 * events.day.value_counts().max()


def test_users_have_about_the_events_per_day_that_were_asked_for(
    log: dict[str, pd.DataFrame], events: pd.DataFrame
) -> None:
    user_days = (SPEC.num_days - (log["users"].registered_at - START).dt.days.clip(lower=0)).sum()
    others = events[events.user_id != "u_heavy"]
    assert len(others) / user_days == pytest.approx(SPEC.events_per_user_day, rel=0.15)


def test_duplicates_are_exact_copies_in_the_stated_share(log: dict[str, pd.DataFrame]) -> None:
    copies = log["events"].event_id.duplicated()
    assert copies.mean() == pytest.approx(SPEC.duplicate_share, rel=0.3)
    assert log["events"].duplicated().sum() == copies.sum()


def test_late_rows_arrive_one_to_three_days_after_their_day(events: pd.DataFrame) -> None:
    delay = (pd.to_datetime(events.ingest_date).dt.tz_localize("UTC") - START).dt.days - events.day
    assert (delay > 0).mean() == pytest.approx(SPEC.late_share, rel=0.3)
    assert set(delay) == {0, 1, 2, 3}


def test_malformed_rows_are_of_every_kind_and_few_on_every_day(log: dict[str, pd.DataFrame]) -> None:
    rows = log["events"]
    assert _is_malformed(rows).mean() == pytest.approx(SPEC.malformed_share, rel=0.3)
    assert _is_malformed(rows).groupby(rows.ingest_date).mean()[: SPEC.num_days].max() < 0.04
    for kind in (rows.user_id, rows.item_id, rows.event_at):
        assert kind.isna().any()
    assert (rows.event_at.dt.year == 1970).any()
    assert (rows.weight < 0).any()


def test_a_malformed_weight_is_not_a_number_rather_than_null(spark: SparkSession) -> None:
    weights = log_tables(spark, SMALL)["events"].selectExpr(
        "count_if(isnan(weight)) nans", "count_if(weight is null) nulls"
    )
    row = weights.first()
    assert row is not None
    assert row.nans > 0
    assert row.nulls == 0


def test_one_user_is_heavy(events: pd.DataFrame) -> None:
    shares = events.user_id.value_counts(normalize=True)
    assert shares["u_heavy"] == pytest.approx(SPEC.heavy_user_share, rel=0.2)
    assert shares.index[0] == "u_heavy"
    assert shares.iloc[1] < shares.iloc[0] / 3


def test_items_are_sold_only_while_alive(events: pd.DataFrame) -> None:
    day = events.event_at.dt.date
    assert (events.born_on <= day).all()
    assert (events.died_on.isna() | (day < events.died_on)).all()


def test_items_are_born_and_die_within_the_log(log: dict[str, pd.DataFrame]) -> None:
    born = log["items"].born_on
    died = log["items"].died_on.dropna()
    assert 0.1 < (born > SPEC.first_day).mean() < 0.5
    assert (died < SPEC.first_day + pd.Timedelta(days=SPEC.num_days)).mean() > 0.3


def test_popularity_is_zipf_like(events: pd.DataFrame) -> None:
    counts = events.item_id.value_counts().to_numpy()
    assert counts[: SPEC.num_items // 10].sum() > 0.4 * counts.sum()
    ranks = np.arange(8, 200)
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks]), 1)[0]
    assert -1.5 < slope < -0.6


def test_events_come_in_bursts_after_registration(log: dict[str, pd.DataFrame], events: pd.DataFrame) -> None:
    others = events[events.user_id != "u_heavy"].sort_values(["user_id", "event_at"])
    waits = others.groupby("user_id").event_at.diff().dropna().dt.total_seconds()
    assert 0.4 < (waits < 1800).mean() < 0.9
    registered_at = log["users"].set_index("user_id").registered_at.loc[events.user_id].to_numpy()
    assert (events.event_at.to_numpy() > registered_at).all()


def test_users_register_before_and_during_the_log(log: dict[str, pd.DataFrame]) -> None:
    assert (log["users"].registered_at >= START).mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("attribute", ["country", "age_band"])
def test_attributes_lean_on_taste(log: dict[str, pd.DataFrame], attribute: str) -> None:
    users = log["users"].merge(log["truth"], on="user_id", validate="one_to_one")
    leading = np.argmax(np.stack(users.taste), axis=1)
    seen = pd.crosstab(users[attribute], leading)
    expected = seen.sum(axis=1).to_numpy()[:, None] * seen.sum(axis=0).to_numpy() / len(users)
    cramers_v = np.sqrt(((seen - expected) ** 2 / expected).to_numpy().sum() / len(users) / (min(seen.shape) - 1))
    assert cramers_v > 0.2


def test_onboarding_picks_follow_registration_and_taste(log: dict[str, pd.DataFrame]) -> None:
    picks = log["onboarding"].merge(log["users"], on="user_id", validate="many_to_one")
    picks = picks.merge(log["items"], on="item_id", validate="many_to_one")
    assert not picks.duplicated(["user_id", "item_id"]).any()
    assert picks.user_id.nunique() == pytest.approx(0.85 * SPEC.num_users, rel=0.05)
    assert (picks.picked_at - picks.registered_at).dt.total_seconds().between(1, 60).all()
    assert (picks.born_on <= picks.picked_at.dt.date).all()
    shares = pd.crosstab(picks.user_id, picks.genre, normalize="index")
    taste = np.stack(log["truth"].set_index("user_id").taste.loc[shares.index])
    assert LinearRegression().fit(shares, taste).score(shares, taste) > 0.15


def test_titles_carry_the_genre(log: dict[str, pd.DataFrame]) -> None:
    for title, genre in zip(log["items"].title, log["items"].genre, strict=True):
        words = title.split()
        assert len(words) == 3
        assert set(words) & set(GENRES[genre].split())


def test_recent_users_return_and_taste_predicts_more(log: dict[str, pd.DataFrame], events: pd.DataFrame) -> None:
    recency, taste, returned = _returns(log, events, SPEC.num_days - 7)
    by_recency = roc_auc_score(returned, -recency)
    both = np.column_stack([np.exp(-recency / 5), recency, taste])
    learn = np.arange(len(returned)) % 2 == 0
    model = LogisticRegression(max_iter=1000).fit(both[learn], returned[learn])
    alone = roc_auc_score(returned[~learn], -recency[~learn])
    assert 0.7 < by_recency < 0.9
    assert roc_auc_score(returned[~learn], model.predict_proba(both[~learn])[:, 1]) > alone + 0.01


def test_the_planted_churn_rate_is_the_share_that_stays_away(
    log: dict[str, pd.DataFrame], events: pd.DataFrame
) -> None:
    away = [1 - _returns(log, events, as_of)[2].mean() for as_of in (SPEC.num_days - 21, SPEC.num_days - 7)]
    active = log["truth"].set_index("user_id").churn_rate.loc[events.user_id.unique()]
    assert active.between(0, 1).all()
    assert active.mean() == pytest.approx(np.mean(away), abs=0.05)


def test_taste_is_readable_from_counts_by_genre(log: dict[str, pd.DataFrame], events: pd.DataFrame) -> None:
    recent = events[events.day >= SPEC.num_days - 30]
    counts = pd.crosstab(recent.user_id, recent.genre)
    counts = counts[counts.sum(axis=1) >= 20]
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    taste = np.stack(log["truth"].set_index("user_id").taste.loc[counts.index])
    learn = np.arange(len(counts)) % 2 == 0
    assert LinearRegression().fit(shares[learn], taste[learn]).score(shares[~learn], taste[~learn]) > 0.6


def test_the_job_writes_a_log(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--out", str(tmp_path), "--users", "9", "--items", "8", "--days", "2", "--first-day", "2023-05-01"]
    monkeypatch.setattr(sys, "argv", [str(JOB), *arguments])
    runpy.run_path(str(JOB), run_name="__main__")
    assert spark.read.parquet(f"{tmp_path}/users").count() == 9
    first = spark.read.parquet(f"{tmp_path}/events").agg({"ingest_date": "min"}).first()
    assert first is not None
    assert first[0] >= date(2023, 5, 1)


def test_a_log_is_written_if_spark_chooses_the_number_of_partitions(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(spark.conf), "get", lambda *_: "auto")  # as on Databricks
    generate_log(spark, LogSpec(2, 2, num_days=1, num_genres=2, num_tastes=2), str(tmp_path))
    assert list(tmp_path.glob("events/ingest_date=*/*.parquet"))


def test_the_job_reports_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(JOB), "--out", str(tmp_path), "--users", "1"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(JOB), run_name="__main__")
    assert capsys.readouterr().err.startswith("LogSpec: num_users must be")

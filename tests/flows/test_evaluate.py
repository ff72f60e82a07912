"""``userrep evaluate`` on a pipeline that has run: figures that repeat, rows and vectors that are the stored ones."""

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from tests.support.command_line import Userrep, config_file, file_of
from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.futures import Futures, read_activity
from userrep.evaluation.newcomers import TruncatedRows, read_truncated_rows, truncated_context
from userrep.evaluation.representation import Context, Matrix
from userrep.evaluation.representations.catalog import REFITTED, representations
from userrep.evaluation.representations.inputs import fit_pca
from userrep.evaluation.run import read_context_and_truth
from userrep.evaluation.sampled_rows import Rows, read_rows
from userrep.evaluation.tasks.task import Truth
from userrep.features.profiles import read_picks
from userrep.model.artifact import load_artifact
from userrep.model.self_check import AKIN_NOTE
from userrep.spaces.registry import add_candidate, artifact_folder, find_space, retire
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SPACE_METRICS, USER_EMBEDDINGS
from userrep.tiles.ledger import read_tiles
from userrep.workflows.data_stages import build_user_features, train_item_vectors
from userrep.workflows.evaluate import evaluate_space, find_evaluable_space, plan_of
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default

ALL = list(representations())
FEW = ["embedding", "popularity", "rfm", "pooled_longest", "raw", "als_folded"]  # cheap, one of each kind of input
FEWER = ["embedding", "popularity", "rfm", "als_folded"]  # what the claims below need
BRIEF = ("--set", "evaluation.num_seeds=2", "--set", "evaluation.num_bootstraps=40")


class Tile(NamedTuple):
    event_date: date
    user_id: str
    item_id: str
    num_events: int
    weight: float
    last_event_at: datetime


class Site:
    """A copy of the pipeline's tables, with what the evaluation's dates need."""

    def __init__(self, config: Config, spark: SparkSession) -> None:
        self.config = config
        self.work = RunContext(config, spark, AS_OF)
        self.space = find_space(self.work.tables, None)
        self.plan = plan_of(self.work, self.space)
        train_item_vectors(self.work, list(self.plan.dates))
        build_user_features(self.work, list(self.plan.dates))
        artifact = load_artifact(artifact_folder(self.work.tables, self.space), self.space.content_hash)
        self.context, self.truth = read_context_and_truth(
            self.work.tables,
            config,
            artifact=artifact,
            versions=self.work.schedule.versions,
            plan=self.plan,
            ledger=self.work.tiles,
        )

    @property
    def rows(self) -> Rows:
        return self.context.rows


@pytest.fixture(scope="module", params=[FEW, pytest.param(ALL, marks=pytest.mark.full)], ids=["few", "all"])
def fitted(site: Site, request: pytest.FixtureRequest) -> dict[str, Matrix]:
    """Representations, fitted on the site's rows."""
    return {name: fit(site.context) for name, fit in representations().items() if name in request.param}


@pytest.fixture(scope="module")
def cutter(site: Site) -> TruncatedRows:
    """What the site's rows are cut from, as far as there are tiles."""
    return read_truncated_rows(site.context, site.work.schedule.versions, most=10**6)


@pytest.fixture(scope="module")
def site(
    done: tuple[RunContext, Config], log: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    root = tmp_path_factory.mktemp("evaluation") / "root"
    shutil.copytree(str(done[1].root), root)
    return Site(pipeline_config(log, root), spark)


def only(names: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Evaluate only some representations; return their names in the order of the catalog."""
    chosen = [name for name in ALL if name in names]
    monkeypatch.setattr(
        "userrep.workflows.evaluate.representations",
        lambda storages: {name: fit for name, fit in representations(storages).items() if name in chosen},
    )
    return chosen


def num_figures(metrics: dict[str, Any]) -> int:
    figures = [figures for task in metrics["tasks"].values() for figures in task["metrics"].values()]
    return sum(len(of_one["representations"]) for of_one in figures)


@pytest.mark.parametrize(
    ("names", "newcomers"), [(FEWER, [3]), pytest.param(ALL, [3, 0], marks=pytest.mark.full)], ids=["few", "all"]
)
def test_the_command_writes_figures_of_every_task(
    site: Site,
    userrep: Userrep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    newcomers: list[int],
) -> None:
    brief = (*BRIEF, "--set", f"evaluation.newcomer_events={newcomers}")
    names = only(names, monkeypatch)
    config = file_of(site.config, tmp_path)
    told = userrep("evaluate", "--config", config, "--out", tmp_path / "one", "--json", *brief)
    assert (told.code, len(told.out.splitlines())) == (0, 1), told.err
    found = json.loads((tmp_path / "one/metrics.json").read_text())
    assert found == json.loads(told.out)
    assert list(found["tasks"]) == [
        "next_item_7d", "next_item_7d_new", "return_7d", "volume_7d", "next_categories_7d", "neighbours",
        "neighbours_by_country", "neighbours_by_age_band", "look_alikes_20",
        *(f"new_users_after_{num}" for num in sorted(newcomers)),
    ]  # fmt: skip
    assert list(found["left_out"]) == ["horizon of 30 days", "look_alikes_100", "look_alikes_1000"]
    for name, task in found["tasks"].items():
        # The space was trained with heads that predict the next days; an attribute is nothing that happens then.
        assert task["touched_by_training_heads"] == (not name.startswith("neighbours_by_"))
        compared = [one for one in names if one != REFITTED or not name.startswith("new_users")]
        for figures in task["metrics"].values():
            assert list(figures["representations"]) == compared
            assert list(figures["embedding_ahead_of"]) == compared[1:]
            for one in figures["representations"].values():
                assert one["low"] <= one["value"] <= one["high"]
                assert len(one["by_seed"]) == (1 if name.startswith(("return", "volume", "next_categories")) else 2)
    pairs = found["tasks"]["next_item_7d"]["metrics"]["auc"]["representations"]
    assert pairs["popularity"]["value"] == pytest.approx(0.5, abs=1e-6)
    # Items by taste: the embedding is clearly ahead of activity counts, and close to folded-in ALS or ahead of it.
    assert pairs["embedding"]["low"] > pairs["rfm"]["high"]
    assert pairs["embedding"]["value"] > pairs["als_folded"]["value"] - 0.01
    assert found["costs"]["embedding"]["fit_seconds"] > 0  # of the space's training, from the ledger
    assert ElementTree.parse(tmp_path / "one/metrics.svg").getroot().tag.endswith("svg")

    stored = site.work.tables.ledger(SPACE_METRICS, evaluation_id=found["evaluation_id"])
    assert len(stored) == num_figures(found)
    mine = next(r for r in stored if (r.task, r.metric, r.representation) == ("next_item_7d", "auc", "rfm"))
    assert mine.ahead_by == pytest.approx(pairs["embedding"]["value"] - pairs["rfm"]["value"], abs=1e-5)

    refused = userrep("evaluate", "--config", config, "--out", tmp_path / "one")
    assert refused.code == 2
    assert refused.faults == [
        f"--out {tmp_path / 'one'}: the folder is not empty (metrics.json, metrics.svg); name another one."
    ]


@pytest.mark.full
def test_the_command_gives_the_same_figures_again_and_prints_a_table(
    site: Site, userrep: Userrep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = (*BRIEF, "--set", "evaluation.newcomer_events=[3]")
    names = only(FEWER, monkeypatch)
    config = file_of(site.config, tmp_path)
    first = userrep("evaluate", "--config", config, "--out", tmp_path / "one", "--json", *brief)
    again = userrep("evaluate", "--config", config, "--out", tmp_path / "two", *brief)
    assert (first.code, again.code) == (0, 0)
    found, repeated = (json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in ("one", "two"))
    same = ("evaluation_id", "manifest", "tasks", "leads", "left_out")
    assert {key: repeated[key] for key in same} == {key: found[key] for key in same}
    auc = found["tasks"]["next_item_7d"]["metrics"]["auc"]["representations"]["embedding"]["value"]
    head, row, *rest = again.out.splitlines()
    assert head.split()[: 2 + len(names)] == ["task", "metric", *names]
    assert row.split()[:4] == ["next_item_7d", "*", "auc", f"{auc:.4f}"]
    assert AKIN_NOTE in rest
    assert any(line.startswith("embedding ahead of") for line in rest) == bool(found["leads"])
    assert any(line.startswith("left out: horizon of 30 days: a horizon of 30 days requires") for line in rest)
    stored = site.work.tables.ledger(SPACE_METRICS, evaluation_id=found["evaluation_id"])
    assert len(stored) == num_figures(found)


def test_a_space_that_cannot_be_evaluated_is_refused_before_spark_starts(
    userrep: Userrep,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("userrep.spark.session.get_session", lambda *_, **__: pytest.fail("a session was asked for"))
    config = config_file(tmp_path)
    tables = FileTables(None, str(tmp_path / "root"))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=date(2024, 5, 1), content_hash="x")
    retire(tables, find_space(tables, "s2"))
    for space_id, said in (
        ("s9", "space s9: not in the registry. Known spaces: s1, s2."),
        ("s2", "space s2 is retired. Choose a space in use."),
        ("s1", "space s1 has lineage l1, but this configuration has "),
        ("S1", "space 'S1' is not a valid name"),
    ):
        answer = userrep("evaluate", "--config", config, "--out", tmp_path / "out", "--space", space_id)
        assert answer.code == 2
        assert answer.faults[0].startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_retired_space_and_one_of_another_lineage_are_named(tmp_path: Path, site: Site) -> None:
    with pytest.raises(UsageError, match="its columns, windows or item vectors differ"):
        find_evaluable_space(site.work.tables, site.config.model_copy(update={"windows_days": [7]}), None)
    with pytest.raises(UsageError, match="not in the registry"):
        find_evaluable_space(site.work.tables, site.config, "s404")


def test_a_log_too_short_after_the_training_is_refused_with_the_date_that_would_do(site: Site) -> None:
    config = site.config.model_copy(
        update={"evaluation": site.config.evaluation.model_copy(update={"horizons_days": [30]})}
    )
    work = RunContext(config, site.work.tables.spark, AS_OF)
    with pytest.raises(UsageError, match=r"training.as_ofs.until is 2024-01-21 or earlier"):
        evaluate_space(work, None, "/nowhere")


def test_the_embedding_of_a_row_is_that_of_the_published_snapshot(site: Site) -> None:
    as_of = site.plan.train[0]
    snapshot = newest_snapshot(site.work.tables, site.space.space_id, as_of)
    stored = {row.user_id: row.embedding for row in site.work.tables.read(USER_EMBEDDINGS, [snapshot.key]).collect()}
    x_ND = representations()["embedding"](site.context)(site.context)
    mine = np.flatnonzero(site.rows.as_of_N == np.datetime64(as_of))
    assert len(mine) == len(stored)
    for row in mine:
        assert x_ND[row].tolist() == stored[site.rows.user_ids[site.rows.user_N[row]].as_py()]


def test_a_sample_takes_whole_users_by_chance_and_never_more_rows_than_asked_for(site: Site) -> None:
    def sampled(max_rows: int, seed: int = 17) -> Rows:
        return read_rows(site.work.tables, site.config, site.space.lineage_id, site.plan, max_rows=max_rows, seed=seed)

    few, other = sampled(300), sampled(300, seed=18)
    assert 240 < len(few) <= 300
    whole = Counter(site.rows.user_ids.take(site.rows.user_N).to_pylist())
    assert all(whole[user] == num for user, num in Counter(few.user_ids.take(few.user_N).to_pylist()).items())
    assert few.user_ids.to_pylist() == sampled(300).user_ids.to_pylist() != other.user_ids.to_pylist()
    assert len(sampled(10**9)) == len(site.rows) == pc.count(site.rows.features.column("user_id")).as_py()


@pytest.fixture(scope="module")
def tiles(site: Site) -> list[Tile]:
    """All tiles; tuples, because fields of Spark's rows are slow to read."""
    rows = read_tiles(site.work.tables, start=None, end=date.max).select(*Tile._fields).toArrow()
    return [Tile(*row) for row in zip(*(rows[name].to_pylist() for name in Tile._fields), strict=True)]


def test_what_users_did_equals_their_tiles(site: Site, tiles: list[Tile]) -> None:
    plan: EvaluationPlan = site.plan
    few = read_rows(site.work.tables, site.config, site.space.lineage_id, plan, max_rows=300, seed=17)
    activity = read_activity(site.work.tables, few, plan, onboarding=site.config.onboarding, ledger=site.work.tiles)
    futures = Futures(few, activity)
    tiles = [tile for tile in tiles if tile.event_date < plan.end]
    by_user = defaultdict(list)
    for tile in tiles:
        by_user[tile.user_id].append(tile)
    items = activity.item_ids.to_pylist()
    history, soon, weight = (m.toarray() for m in (futures.history, futures.num_events(7), futures.weight(7)))
    for row in range(0, len(few), 7):
        user, day = few.user_ids[few.user_N[row]].as_py(), few.dates[few.date_N[row]]
        mine = by_user[user]
        before, after, weighs = Counter(), Counter(), 0.0
        for tile in mine:
            if tile.event_date < day:
                before[tile.item_id] += tile.num_events
            elif tile.event_date < day + timedelta(days=7):
                after[tile.item_id] += tile.num_events
                weighs += tile.weight
        assert {items[i]: n for i, n in enumerate(history[row]) if n} == before
        assert {items[i]: n for i, n in enumerate(soon[row]) if n} == after
        assert weight[row].sum() == weighs
    for d, day in enumerate(plan.dates):
        popular = Counter()
        for tile in tiles:
            if day - timedelta(days=30) <= tile.event_date < day:
                popular[tile.item_id] += tile.num_events
        assert {items[i]: n for i, n in enumerate(activity.popularity_DI[d]) if n} == {
            item: n for item, n in popular.items() if item in set(items)
        }
        sold = {tile.item_id for tile in tiles if tile.event_date < day}
        assert {items[i] for i in np.flatnonzero(activity.is_sold_DI[d])} == sold & set(items)
    picks = {
        (pick.user_id, pick.item_id) for pick in read_picks(site.work.tables.spark, site.config.onboarding).collect()
    }
    users = few.user_ids.to_pylist()
    found = {(users[u], items[i]) for u, i in zip(*activity.picked.nonzero(), strict=True)}
    assert found == {(user, item) for user, item in picks if user in set(users)}


def test_item_vectors_of_a_date_are_those_of_the_version_valid_then(site: Site) -> None:
    truth: Truth = site.truth
    assert all(version <= day for day, version in truth.items.version_of.items())
    assert {day: site.work.schedule.versions.valid_at(day) for day in truth.items.version_of} == dict(
        truth.items.version_of
    )
    assert truth.items.at(site.plan.until).shape == (len(truth.activity.item_ids), 16 + 16 + 2)


def test_interactions_and_earlier_features_end_where_training_ends(site: Site, tiles: list[Tile]) -> None:
    context: Context = site.context
    until = site.plan.until
    wanted = Counter()
    for tile in (tile for tile in tiles if tile.event_date < until):
        wanted[tile.user_id, tile.item_id] += tile.num_events
    assert {(r.user_id, r.item_id): r.num_events for r in context.interactions().collect()} == wanted
    dates = {row.as_of for row in context.earlier_features(max_rows=10**9).select("as_of").distinct().collect()}
    assert max(dates) == until
    assert 200 < context.earlier_features(max_rows=300).count() < 400


def test_uncut_rows_have_the_stored_features_to_the_bit(site: Site, cutter: TruncatedRows) -> None:
    stored, made = site.rows.features, cutter.features(10**6)
    assert len(stored) > 1000
    assert set(made.schema.names) == set(stored.schema.names)
    for name in stored.schema.names:
        assert made.column(name).to_pylist() == stored.column(name).to_pylist(), name
    assert (site.context.layout.raw(made) == site.context.raw()).all()


def test_the_newest_tiles_of_rows_are_those_of_the_table(site: Site, tiles: list[Tile]) -> None:
    cutter = read_truncated_rows(site.context, site.work.schedule.versions, most=3)
    rows, users = site.rows, site.rows.user_ids.to_pylist()
    by_user = defaultdict(list)
    for tile in (tile for tile in tiles if tile.event_date < rows.dates[-1]):
        by_user[tile.user_id].append(tile)
    history = cutter.newest.history(3, len(rows), site.context.activity.item_ids).toarray()
    items = site.context.activity.item_ids.to_pylist()
    for n in range(0, len(rows), 5):
        day, mine = rows.dates[rows.date_N[n]], by_user[users[rows.user_N[n]]]
        inside = [tile for tile in mine if day - timedelta(days=2 * 28) <= tile.event_date < day]
        newest = sorted(inside, key=lambda tile: tile.last_event_at)[-3:]
        found = cutter.newest.tiles.filter(pa.array(cutter.newest.row_E == n)).to_pylist()
        wanted = sorted((t.item_id, t.weight, t.num_events, (t.event_date - date(1970, 1, 1)).days) for t in newest)
        assert sorted((t["item_id"], t["weight"], t["num_events"], t["day"]) for t in found) == wanted
        counts = Counter()
        for tile in newest:
            counts[tile.item_id] += tile.num_events
        assert {items[i]: count for i, count in enumerate(history[n]) if count} == counts
    first = {user: min(tile.event_date for tile in mine) for user, mine in by_user.items() if mine}
    days = cutter.newest.first_day_U.tolist()
    assert [day for user, day in zip(users, days, strict=True) if user in first] == [
        (first[user] - date(1970, 1, 1)).days for user in users if user in first
    ]


def test_cut_rows_are_the_same_where_items_come_in_parts(site: Site, cutter: TruncatedRows) -> None:
    in_parts = replace(cutter, item_parts=4)
    for most in (0, 2):
        whole, made = cutter.features(most), in_parts.features(most)
        assert made.to_pylist() == whole.to_pylist()
        assert len(whole) == len(site.rows)
    small = site.config.spark.model_copy(update={"item_vectors_bytes": 30_000})
    context = replace(site.context, config=site.config.model_copy(update={"spark": small}))
    assert read_truncated_rows(context, site.work.schedule.versions, most=1).item_parts > 1


def test_a_cut_row_is_described_by_what_is_known_of_it_and_not_by_who_it_is(
    site: Site, cutter: TruncatedRows, fitted: dict[str, Matrix]
) -> None:
    cut = truncated_context(site.context, cutter, 2)
    assert cut.futures.history.sum() < site.context.futures.history.sum() / 5
    others = np.random.default_rng(1).permutation(len(site.rows.user_ids))[site.rows.user_N]
    as_others = replace(cut, futures=replace(cut.futures, rows=replace(cut.rows, user_N=others)))
    nothing = truncated_context(site.context, cutter, 0)
    assert not nothing.futures.history.nnz
    for name, matrix in fitted.items():
        x_NF = matrix(cut)
        assert (x_NF == matrix(as_others)).all(), name
        assert x_NF.shape == matrix(nothing).shape
        if name in ("rfm", "als_folded", "nmf", "pooled_longest"):
            assert (x_NF != matrix(site.context)).any(axis=1).mean() > 0.5, name
            assert name == "rfm" or not matrix(nothing).any(), name
    if picks := fitted.get("picks"):
        assert (picks(nothing) == picks(site.context)).all()
        assert picks(nothing).any()


def test_representations_have_the_rows_and_the_widths_that_they_declare(site: Site, fitted: dict[str, Matrix]) -> None:
    widths = {}
    for name, matrix in fitted.items():
        x_NF = matrix(site.context)
        assert x_NF.dtype == np.float32
        assert len(x_NF) == len(site.rows)
        assert np.isfinite(x_NF).all()
        widths[name] = x_NF.shape[1]
    layout = site.context.layout
    expected = {
        "embedding": 48, "untrained": 48, "principal": 48, "popularity": 1, "rfm": 9 + 3, "rfm_history": 12 + 3,
        "picks": 2 * 17, "pooled_longest": 2 * 17, "pooled_all": 8 * 17, "raw": layout.width,
        "pca": min(120, layout.width), "als_static": 81, "als_folded": 81, "als_refitted": 81, "nmf": 81,
    }  # fmt: skip
    assert widths == {name: expected[name] for name in widths}


def test_principal_components_find_the_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x_BF = (rng.normal(size=(4000, 6)) * [9, 5, 1, 0.5, 0.2, 0.1] @ axes.T + 3).astype(np.float32)
    matrix = fit_pca(cast(Any, SimpleNamespace(earlier_rows=x_BF, seed=17)), num_components=2)
    origin, along = (matrix(cast(Any, SimpleNamespace(scaled=lambda x=x: x))) for x in (np.zeros((1, 6)), axes.T))
    length_A = np.linalg.norm(along - origin, axis=1)  # in the plane of the first two, whose coordinates are rotated
    assert length_A[:2].min() > 0.99
    assert length_A[2:].max() < 0.1

"""Which dates are built from the tiles and which from window sums, and what a stage says of it."""

from contextlib import contextmanager
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from userrep.errors import UsageError
from userrep.features.profiles import Profiles
from userrep.features.sums.item_matrix import ItemParts
from userrep.features.sums.refresh import Refresh
from userrep.store.buckets import NUM_BUCKETS
from userrep.tiles.ledger import NO_ROWS, TileLedger
from userrep.workflows import data_stages
from userrep.workflows.data_stages import build_user_features, refresh_user_features, train_item_vectors
from userrep.workflows.runs import StageRun

pytestmark = pytest.mark.fast

AS_OF = date(2024, 6, 1)
DAYS = [AS_OF - timedelta(days=k) for k in range(20, -1, -1)]
SETS = {day: SimpleNamespace(num_inexact=1 if day == AS_OF else 0) for day in DAYS}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[StageRun]:
    return []


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the dates that are built together, and the date that is built from window sums."""
    calls: list[Any] = []

    def build(*given: Any, profiles: Profiles, ledger: TileLedger, num_buckets: int) -> int:
        calls.append(given[3] if num_buckets == NUM_BUCKETS else (num_buckets, given[3]))
        return len(given[3])

    def refresh(*given: Any, profiles: Profiles, ledger: TileLedger) -> Refresh:
        calls.append(("sums", given[3]))
        return Refresh(AS_OF - timedelta(days=1), "from the sums of the day before", 1200, 7)

    monkeypatch.setattr(data_stages, "build_features", build)
    monkeypatch.setattr(data_stages, "refresh_features", refresh)
    monkeypatch.setattr(data_stages, "item_parts", lambda *_: ItemParts(1, 0))
    monkeypatch.setattr(data_stages, "feature_sets", lambda *_, **__: SETS)
    monkeypatch.setattr(data_stages, "stored_features", lambda *_: None)
    monkeypatch.setattr(data_stages, "heavy_users", lambda *_: None)
    monkeypatch.setattr(data_stages, "features_table", lambda *_: SimpleNamespace(name="user_features_l1"))
    return calls


def work_on(monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], stale: list[date]) -> Any:
    @contextmanager
    def stage(name: str, inputs: Any = None, *, pinned: dict[str, int]) -> Any:
        stages.append(StageRun(name))
        yield stages[-1]

    monkeypatch.setattr(
        data_stages,
        "stale_features",
        lambda *given, profile_hashes, ledger, num_buckets: {d: "not built yet" for d in given[3] if d in stale},
    )
    versions = SimpleNamespace(lineage_id="l1", check_built=lambda _: None)
    log = SimpleNamespace(days=[SimpleNamespace(day=day) for day in DAYS])
    schedule = SimpleNamespace(as_of=AS_OF, versions=versions, inventory=log)
    rest = {"tables": None, "config": SimpleNamespace(windows_days=[7]), "profiles": Profiles("h", 3)}
    rest["tiles"] = SimpleNamespace(version=5, days=dict.fromkeys(DAYS[:-1], SimpleNamespace(content="c")))
    return cast(Any, SimpleNamespace(runs=SimpleNamespace(stage=stage), schedule=schedule, **rest))


def test_stale_dates_are_built_in_groups_and_the_as_of_date_from_its_sums(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any]
) -> None:
    build_user_features(work_on(monkeypatch, stages, DAYS), DAYS, leave_sums=True)
    assert built == [("sums", AS_OF), DAYS[:16], DAYS[16:-1]]
    (run,) = stages
    assert run.num_rows == 20 + 7
    assert run.reason == (
        "21 of 21 as-of dates: not built yet; updated from the sums of the day before, 1,200 tiles read; 1 user with "
        "inexact sums (weights too large)"
    )
    assert run.outputs["as_ofs"] == DAYS
    assert run.outputs["num_tiles"] == 1200


def test_requested_dates_are_built_even_if_they_are_up_to_date(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any]
) -> None:
    build_user_features(work_on(monkeypatch, stages, []), DAYS[-3:], force=[AS_OF])
    assert built == [[AS_OF]]
    assert stages[0].reason.startswith("1 of 3 as-of dates: requested")


@pytest.mark.parametrize("leave_sums", [True, False])
@pytest.mark.parametrize("num_buckets", [NUM_BUCKETS, NUM_BUCKETS // 5])
def test_dates_that_are_only_trained_on_are_built_for_a_sample_if_there_are_many_users(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any], leave_sums: bool, num_buckets: int
) -> None:
    work = work_on(monkeypatch, stages, DAYS)
    work.schedule.num_sampled_buckets = num_buckets
    sampled, published = DAYS[:3], DAYS[-3:]
    dates = [*sampled, *published]
    build_user_features(work, dates, sampled=sampled, force=[AS_OF], leave_sums=leave_sums)
    first = ("sums", AS_OF) if leave_sums else [AS_OF]  # its number of users decides
    is_sampled = num_buckets < NUM_BUCKETS
    rest = [(NUM_BUCKETS // 4, sampled), published[:-1]] if is_sampled else [dates[:-1]]
    assert built == [first, *rest]
    assert stages[0].reason.startswith("6 of 6 as-of dates: not built yet; ")
    assert ("; 3 dates for 1 in 4 users; " in stages[0].reason) == is_sampled


def test_a_daily_run_builds_one_date_from_its_sums_unless_it_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any]
) -> None:
    refresh_user_features(work_on(monkeypatch, stages, [AS_OF]))
    refresh_user_features(work_on(monkeypatch, stages, []))
    assert built == [("sums", AS_OF)]
    assert [(run.stage, run.outcome) for run in stages] == [
        ("refresh_user_features", "done"), ("refresh_user_features", "skipped"),
    ]  # fmt: skip


def test_dates_are_refused_if_the_newest_days_before_them_lack_tiles(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any]
) -> None:
    yesterday = DAYS[-2]
    for tile in (None, SimpleNamespace(content=NO_ROWS)):  # never built, or built while the log lacked the day
        work = work_on(monkeypatch, stages, DAYS[-2:])
        del work.tiles.days[yesterday]
        work.tiles.days |= {yesterday: tile} if tile else {}
        said = rf"tiles: missing for 1 day of the log before {AS_OF}, the first is {yesterday}\. Run `userrep run build"
        with pytest.raises(UsageError, match=said):
            build_user_features(work, DAYS)
        work.schedule.versions.missing = lambda as_ofs: as_ofs
        with pytest.raises(UsageError, match=said):
            train_item_vectors(work, DAYS)
    assert built == []


def test_days_on_or_after_a_date_and_days_between_others_may_lack_tiles(
    monkeypatch: pytest.MonkeyPatch, stages: list[StageRun], built: list[Any]
) -> None:
    work = work_on(monkeypatch, stages, DAYS[-2:-1])
    del work.tiles.days[DAYS[-2]], work.tiles.days[DAYS[3]]
    build_user_features(work, DAYS)
    assert built == [DAYS[-2:-1]]

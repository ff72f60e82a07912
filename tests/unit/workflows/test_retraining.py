"""The retraining policy: when a training is due, which consumers are compared, and when a candidate is promoted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from tests.unit.spaces.test_verdicts import LABELS, PASSED
from userrep.errors import GateRefusedError, UsageError, UserrepError
from userrep.spaces.consumer_model import ConsumerModel
from userrep.spaces.consumers import declare_ready, pin_consumer, register_consumer
from userrep.spaces.registry import add_map, find_space, mark_ready, promote, read_registry, retire
from userrep.spaces.snapshots import record_snapshots
from userrep.spaces.verdicts import LabelTable, Verdict, newest_verdicts, record_verdict
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS, SNAPSHOT_DRIFT
from userrep.utc import utc_now
from userrep.workflows import retraining
from userrep.workflows.retraining import retrain_if_due

pytestmark = pytest.mark.fast

TODAY = utc_now().date()
DUE_ON = TODAY + timedelta(days=28)
OTHER = LabelTable("/other.parquet")


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTables:
    """Tables with a space that serves and was trained today."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s1")
    mark_ready(tables, find_space(tables, "s1"))
    promote(tables, find_space(tables, "s1"))
    monkeypatch.setattr("userrep.workflows.runs.SparkWork", lambda _: SimpleNamespace(found=dict))
    monkeypatch.setattr(FileTables, "spark", None)
    monkeypatch.setattr(retraining, "lineage_of", lambda _: "l1")
    return tables


@pytest.fixture
def results(tables: FileTables, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace training, map and comparison by stubs; return the verdict or error of each path of labels."""
    results: dict[str, Any] = {"trained": [], "due": [], "maps": 0, LABELS.labels: "pass", OTHER.labels: "pass"}

    def run_pipeline(work: Any, *, retrain: bool) -> None:
        assert retrain
        results["due"].append(work.training_due)
        space_id = f"s{len(read_registry(tables).spaces) + 1}"
        results["trained"].append(space_id)
        if isinstance(results.get("training"), Exception):
            raise results["training"]
        add_spaces(tables, space_id)
        mark_ready(tables, find_space(tables, space_id))

    def diff_spaces(*_: object, old: Any, new: Any, **__: object) -> None:
        results["maps"] += 1
        add_map(tables, new, old, "hash")

    def compare_spaces(*_: object, old: Any, new: Any, label_table: LabelTable) -> Any:
        found = results[label_table.labels]
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(verdict_for=lambda name, table: verdict(name, found, old.space_id, new.space_id, table))

    for name, stub in (
        ("run_pipeline", run_pipeline),
        ("diff_spaces", diff_spaces),
        ("compare_spaces", compare_spaces),
        ("read_model", lambda path: ConsumerModel(weights=[1.0], space_id=None if "unnamed" in path else "s1")),
    ):
        monkeypatch.setattr(retraining, name, stub)
    return results


def verdict(name: str, value: str, old: str, new: str, table: LabelTable) -> Verdict:
    changed = {"consumer": name, "verdict": value, "old_space_id": old, "new_space_id": new, "label_table": table}
    return replace(PASSED, compared_at=utc_now(), **changed)


@pytest.fixture
def night(tables: FileTables, results: dict[str, Any], tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Return a function that runs the part with a policy, some days after today."""

    def run(days: int = 0, **policy: Any) -> tuple[str, str]:
        config = config_of(tmp_path, retraining=policy)
        context: Any = SimpleNamespace
        return retrain_if_due(tables, config, TODAY + timedelta(days=days), context)

    return run


def follow(tables: FileTables, **label_tables: LabelTable | None) -> None:
    """Register followers; those with labels have a verdict on an earlier pair of spaces."""
    for name, table in label_tables.items():
        register_consumer(tables, name, owner="team")
        if table is not None:
            record_verdict(tables, verdict(name, "fail", "s0", "s1", table))


def drift(tables: FileTables, outcome: str, *, hours: int = 1, part: str = "") -> None:
    row = {"snapshot_id": "s1-20240501-r1", "space_id": "s1", "as_of": date(2024, 5, 1), "before_id": "b"}
    row |= {"metric": "psi", "part": part, "value": 0.4, "outcome": outcome}
    tables.add(SNAPSHOT_DRIFT, [row | {"measured_at": utc_now() + timedelta(hours=hours)}])


@pytest.mark.parametrize(("days", "is_due"), [(27, False), (28, True)])
def test_a_training_is_due_by_the_age_of_the_newest_space(
    night: Callable[..., tuple[str, str]], results: dict[str, Any], days: int, is_due: bool
) -> None:
    outcome, reason = night(days)
    if is_due:
        assert (outcome, results["trained"]) == ("done", ["s2"])
        assert reason == f"space s1 was trained on {TODAY}; space s2 waits to serve: no consumer follows"
    else:
        assert (outcome, reason, results["trained"]) == ("skipped", f"due on {DUE_ON}, 28 days after s1", [])


def test_a_new_candidate_warns_of_older_ones_that_no_consumer_is_pinned_to(
    tables: FileTables, night: Callable[..., tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [record.message for record in caplog.records if "older spaces also wait" in record.message]

    night(28)
    assert warned() == []
    night(56)
    night(0)  # nothing is due
    assert len(warned()) == 1
    assert "wait to serve: s2. Daily" in warned()[0]
    register_consumer(tables, "ads", owner="team")
    pin_consumer(tables, "ads", "s2")
    night(84)
    assert "wait to serve: s3. Daily" in warned()[-1]


def test_a_training_that_does_not_end_has_the_same_dates_in_all_nights_of_a_week(
    night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    results["training"] = UserrepError("killed")
    for days in (28, 29, 34, 35, 41):
        with pytest.raises(UserrepError, match="killed"):
            night(days)
    assert results["due"] == [DUE_ON] * 3 + [DUE_ON + timedelta(days=7)] * 2


def test_a_candidate_that_waits_delays_the_next_training_until_it_is_as_old(
    night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    night(28)
    assert night(27) == ("skipped", "space s2 waits to serve: no consumer follows")
    night(28)
    assert results["trained"] == ["s2", "s3"]


def test_spaces_of_another_configuration_neither_delay_a_training_nor_are_promoted(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_spaces(tables, "s2", lineage_id="l2")
    assert night() == ("skipped", f"due on {DUE_ON}, 28 days after s1")  # a candidate without snapshots
    mark_ready(tables, find_space(tables, "s2"))
    assert night(promote="when_all_pass") == ("skipped", f"due on {DUE_ON}, 28 days after s1")
    assert find_space(tables, None).space_id == "s1"
    monkeypatch.setattr(retraining, "lineage_of", lambda _: "l3")
    with pytest.raises(AssertionError):  # the stub trains a space of l1
        night()
    assert results["trained"] == ["s3"]


def test_drift_of_the_serving_space_since_the_newest_training_makes_one_due(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    drift(tables, "warn", hours=-1)
    drift(tables, "ok")
    drift(tables, "warn", part="num_events_7d")
    assert night()[0] == "skipped"
    drift(tables, "warn")
    assert night(on_drift=False)[0] == "skipped"
    assert night()[1].startswith("psi 0.400 of s1-20240501-r1 is past drift.warn; space s2 waits")
    drift(tables, "fail", hours=2)
    assert night()[0] == "skipped"  # a newer space waits to serve
    retire(tables, find_space(tables, "s2"))
    night()
    assert results["trained"] == ["s2", "s3"]


def test_an_interrupted_training_or_publication_is_completed(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    add_spaces(tables, "s2")
    assert night()[1].startswith("the first snapshots of space s2 are missing; ")
    add_spaces(tables, "s4")
    record_snapshots(tables, [snapshot(TODAY, space="s4")])
    assert night() == ("skipped", "space s4 waits to serve: no consumer follows")
    add_spaces(tables, "s5")
    record_snapshots(tables, [snapshot(TODAY, space="s5", state="refused")])
    assert night() == ("skipped", f"due on {DUE_ON}, 28 days after s5")
    assert results["trained"] == ["s3"]


def test_drift_trains_no_other_space_in_the_night_that_completes_a_publication(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    add_spaces(tables, "s2")
    record_snapshots(tables, [snapshot(TODAY, space="s2")])
    drift(tables, "warn")
    assert night() == ("skipped", "space s2 waits to serve: no consumer follows")
    assert results["trained"] == []


def test_followers_are_compared_once_on_the_labels_of_their_newest_verdict(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any], lines: list[str]
) -> None:
    follow(tables, ads=LABELS, mail=OTHER, search=None)
    results[OTHER.labels] = UsageError("labels: too few.")
    _, reason = night(28)
    assert reason.endswith("space s2 waits to serve: ads pass, mail has no verdict, search has no verdict")
    assert "consumer mail is not compared: labels: too few." in lines
    results |= {OTHER.labels: "undecided", LABELS.labels: UsageError("not read again")}
    assert night() == ("done", "space s2 waits to serve: ads pass, mail undecided, search has no verdict")
    assert night() == ("skipped", "space s2 waits to serve: ads pass, mail undecided, search has no verdict")
    assert (results["maps"], find_space(tables, None).space_id) == (1, "s1")
    rows = tables.ledger(JOB_RUNS)
    assert [(row.stage, row.outcome) for row in rows] == [("compare_spaces", "done")] * 2
    assert {"ads pass, mail undecided" in row.reason for row in rows} == {True, False}
    assert len([v for v in newest_verdicts(tables) if v.new_space_id == "s2"]) == 2


def test_a_model_that_names_no_space_is_not_compared_after_another_space_serves(
    tables: FileTables, results: dict[str, Any], night: Callable[..., tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    follow(tables, **{name: replace(LABELS, model=f"/{name}.json") for name in ("named", "unnamed")})
    night(28)
    assert [v.consumer for v in newest_verdicts(tables) if v.new_space_id == "s2"] == ["named"]
    assert "consumer unnamed is not compared: --model" in caplog.text
    assert "was last compared on s0. Compare with a model of s1" in caplog.text


def test_a_verdict_of_fail_refuses_the_night_in_which_it_is_made(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    follow(tables, ads=LABELS)
    results[LABELS.labels] = "fail"
    with pytest.raises(
        GateRefusedError, match=r"space s2 fails for ads: fail, auc .*`userrep spaces compare s1 s2 --labels="
    ):
        night(28, promote="when_all_pass")
    assert night(promote="when_all_pass") == ("skipped", "space s2 waits to serve: ads fail")
    assert find_space(tables, None).space_id == "s1"


def test_a_candidate_is_promoted_only_if_the_policy_allows_it_and_all_followers_pass_and_are_ready(
    tables: FileTables, night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    policy = {"promote": "when_all_pass"}
    assert night(28, **policy)[1].endswith("space s2 waits to serve: no consumer follows")
    follow(tables, ads=LABELS, mail=OTHER)
    results[OTHER.labels] = "undecided"
    night(**policy)
    record_verdict(tables, verdict("mail", "pass", "s1", "s2", OTHER))
    assert night(**policy) == ("skipped", "space s2 waits to serve: ads pass, mail pass")  # neither is ready
    for name in ("ads", "mail"):
        declare_ready(tables, name, "s2")
    assert night(promote="never")[0] == "skipped"
    assert night(**policy) == ("done", "space s2 is serving, because all consumers that follow pass")
    assert sorted(row.stage for row in tables.ledger(JOB_RUNS)) == ["compare_spaces", "promote"]
    assert find_space(tables, None).space_id == "s2"
    assert night(**policy) == ("skipped", f"due on {DUE_ON}, 28 days after s2")


def test_a_refused_training_leaves_no_candidate_and_is_repeated(
    night: Callable[..., tuple[str, str]], results: dict[str, Any]
) -> None:
    results["training"] = GateRefusedError("self-check: behind.")
    for _ in range(2):
        with pytest.raises(GateRefusedError, match="self-check: behind"):
            night(28)
    assert len(results["trained"]) == 2


def test_without_a_serving_space_there_is_nothing_to_retrain(results: dict[str, Any], tmp_path: Path) -> None:
    empty = FileTables(None, str(tmp_path / "empty"))
    config, context = config_of(tmp_path, retraining={}), results.get
    assert retrain_if_due(empty, config, TODAY, context) == ("skipped", "no space is serving")  # type: ignore[arg-type]

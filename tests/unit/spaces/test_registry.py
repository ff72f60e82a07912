"""The registry as it is stored: one commit a change, also where several come at once."""

import multiprocessing
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.unit.spaces.test_consumers import with_spaces
from tests.unit.spaces.test_transitions import A, B, C, consumer, two_spaces
from userrep.errors import PromotionRefusedError, UserrepError
from userrep.spaces import consumers, transitions
from userrep.spaces.registry import change_registry, find_space, mark_ready, promote, read_registry
from userrep.spaces.registry_state import Registry
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.default


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables below a path: their registry needs no session."""
    return FileTables(None, str(tmp_path))


def test_what_changes_nothing_makes_no_commit(tables: Tables) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "ads", owner="team")
    consumers.declare_ready(tables, "ads", B)
    before = tables.version(REGISTRY)
    consumers.register_consumer(tables, "ads", owner="team")
    consumers.declare_ready(tables, "ads", B)
    consumers.pin_consumer(tables, "ads", "serving")
    mark_ready(tables, find_space(tables, A))
    promote(tables, find_space(tables, A))
    assert tables.version(REGISTRY) == before


def test_a_kill_between_the_look_and_the_commit_leaves_the_registry_as_it_was(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spaces(tables, A, B)
    before, version = read_registry(tables), tables.version(REGISTRY)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("userrep.store.delta_commits.write_deltalake", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(tables, find_space(tables, B))
    assert (read_registry(tables), tables.version(REGISTRY)) == (before, version)
    promote(tables, find_space(tables, B))
    assert find_space(tables, "serving").space_id == B


def overtaken_by(
    change: Callable[[], object], monkeypatch: pytest.MonkeyPatch, kind: type[FileTables | SparkTables] = FileTables
) -> None:
    """Let another change be committed between the next change's look and its commit."""
    real = kind.add

    def add(self: Tables, *args: Any, **more: Any) -> bool:
        monkeypatch.setattr(kind, "add", real)
        change()
        return self.add(*args, **more)

    monkeypatch.setattr(kind, "add", add)


def test_a_promotion_that_another_change_overtakes_fails_with_an_error(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spaces(tables, A, B, C)
    overtaken_by(lambda: promote(tables, find_space(tables, C)), monkeypatch)
    with pytest.raises(
        UserrepError, match=r"because another change of the registry came first\. Check with `userrep spaces list`"
    ):
        promote(tables, find_space(tables, B))
    assert find_space(tables, None).space_id == C


def test_a_consumer_that_comes_in_between_is_heard_before_a_promotion(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spaces(tables, A, B)
    consumers.register_consumer(tables, "mail", owner="team", pin=A)
    recorded = {"training_set_id": "t1", "snapshot_ids": ["x"]}
    overtaken_by(lambda: consumers.register_consumer(tables, "ads", owner="team"), monkeypatch)
    with pytest.raises(PromotionRefusedError, match="consumer ads"):
        promote(tables, find_space(tables, B))
    consumers.declare_ready(tables, "ads", B)
    overtaken_by(lambda: consumers.record_training_set(tables, "mail", **recorded), monkeypatch)  # type: ignore[arg-type]
    promote(tables, find_space(tables, B))
    assert find_space(tables, None).space_id == B
    assert read_registry(tables).consumer("mail").training_set_id == "t1"


def test_a_change_that_never_gets_its_turn_ends(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with_spaces(tables, A)
    monkeypatch.setattr(FileTables, "add", lambda *_, **__: False)
    monkeypatch.setattr("userrep.store.tables._LONGEST_PAUSE", 0)
    with pytest.raises(
        UserrepError,
        match=r"^spaces and consumers: not changed, because other runs .*\. Check with `userrep spaces list` and",
    ):
        consumers.register_consumer(tables, "ads", owner="team")


def promote_at_once(root: str, space_id: str, together: Any) -> str:
    """Promote a space once all contenders have read the registry; return the winner or the error."""
    first = [True]

    def transition(known: Registry) -> Registry:
        if first.pop() if first else False:
            together.wait(timeout=60)
        return transitions.promote(known, space_id)

    try:
        change_registry(FileTables(None, root), transition, require_same_spaces=True)
    except UserrepError as error:
        return str(error)
    return "won"


@pytest.mark.parametrize("seed", range(5))
def test_of_threads_that_promote_at_once_exactly_one_wins(tables: Tables, tmp_path: Path, seed: int) -> None:
    chance, ids = random.Random(seed), [f"s{k:03d}" for k in range(5)]
    with_spaces(tables, *ids)
    for _ in range(6):
        serving = find_space(tables, None).space_id
        contenders = chance.sample([space_id for space_id in ids if space_id != serving], chance.randint(2, 4))
        together, said = threading.Barrier(len(contenders)), {}

        def contend(space_id: str, together: threading.Barrier = together, said: dict[str, str] = said) -> None:
            said[space_id] = promote_at_once(str(tmp_path), space_id, together)

        threads = [threading.Thread(target=contend, args=(space_id,)) for space_id in contenders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [space_id for space_id, answer in said.items() if answer == "won"]
        assert all("another change of the registry came first" in said[s] for s in contenders if s != winner)
        assert [s.space_id for s in read_registry(tables).spaces if s.state == "serving"] == [winner]


def _contend(root: str, mine: tuple[str, ...], together: Any, answers: Any) -> None:
    for space_id in mine:
        answers.put((space_id, promote_at_once(root, space_id, together)))
        together.wait(timeout=60)


def test_of_two_processes_that_promote_at_once_exactly_one_wins(tables: Tables, tmp_path: Path) -> None:
    rounds = 15
    left, right = ([f"{side}{k:02d}" for k in range(rounds)] for side in "ab")
    with_spaces(tables, "first", *left, *right)
    start = multiprocessing.get_context("spawn")
    together, answers = start.Barrier(2), start.Queue()
    both = [
        start.Process(target=_contend, args=(str(tmp_path), tuple(mine), together, answers)) for mine in (left, right)
    ]
    for process in both:
        process.start()
    said = dict(answers.get(timeout=120) for _ in range(2 * rounds))
    for process in both:
        process.join()
    for pair in zip(left, right, strict=True):
        assert sorted(said[space_id] == "won" for space_id in pair) == [False, True]
    assert read_registry(tables).space(None).last_turn == rounds + 1


@pytest.fixture
def catalog(spark: SparkSession, tmp_path: Path) -> Any:
    """Tables in a schema of the session's catalog, which have no files of their own."""
    spark.sql(f"CREATE DATABASE registries LOCATION '{tmp_path}/registries'")
    yield SparkTables(spark, schema="`registries`", artifacts=str(tmp_path))
    spark.sql("DROP DATABASE registries CASCADE")


@pytest.mark.full
def test_tables_of_a_catalog_have_the_same_registry_by_way_of_spark(
    catalog: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = two_spaces(consumer("ads", ready_for=B))
    assert change_registry(catalog, lambda _: known) == read_registry(catalog) == known
    version = catalog.version(REGISTRY)
    promote(catalog, known.spaces[1])
    assert catalog.version(REGISTRY) == version + 1
    found = read_registry(catalog)
    assert {s.space_id: (s.state, s.last_turn) for s in found.spaces} == {A: ("ready", 1), B: ("serving", 2)}
    recorded = {"training_set_id": "t1", "snapshot_ids": ["x"]}
    overtaken_by(lambda: consumers.record_training_set(catalog, "ads", **recorded), monkeypatch, SparkTables)  # type: ignore[arg-type]
    consumers.remove_consumer(catalog, "ads")  # looks again, and finds another registry
    assert read_registry(catalog) == replace(found, consumers=())


@pytest.mark.full
def test_of_threads_that_commit_by_way_of_spark_at_once_exactly_one_wins(catalog: Tables) -> None:
    catalog.create(REGISTRY)
    for turn in range(3):
        since, together, won = catalog.version(REGISTRY), threading.Barrier(2), []

        def commit(name: str, since: int = since, together: Any = together, won: list[str] = won) -> None:
            together.wait(timeout=60)
            if catalog.add(REGISTRY, [{"kind": "consumer", "name": name}], replacing="true", since=since):
                won.append(name)

        threads = [threading.Thread(target=commit, args=(f"{side}{turn}",)) for side in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (row,) = catalog.ledger(REGISTRY)
        assert [row["name"]] == won

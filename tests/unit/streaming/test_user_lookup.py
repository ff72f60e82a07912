"""Look-ups of one space: the newer of the streamed vector and the snapshot's, of the right space and revision."""

from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.support.builders import config_of
from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote, retire
from userrep.spaces.snapshots import PUBLISHED, STAGED, Snapshot, record_snapshots
from userrep.store.arrow import listed
from userrep.store.open import open_tables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of
from userrep.streaming import user_lookup
from userrep.streaming.redis_store import Embedding
from userrep.streaming.user_lookup import lookup, newest_vectors

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))
NOON = datetime(2024, 5, 2, 12)


class Online:
    """An online store that holds these vectors of a space, and counts who was asked for."""

    def __init__(self, space_id: str, **embeddings: Embedding) -> None:
        self.space_id = space_id
        self.embeddings = {user: embedding._replace(space_id=space_id) for user, embedding in embeddings.items()}
        self.asked: list[str] = []

    def read(self, space_id: str, user_ids: list[str]) -> list[Embedding | None]:
        assert space_id == self.space_id
        self.asked += user_ids
        return [self.embeddings.get(user) for user in user_ids]


def streamed(as_of: date, *vector: float) -> Embedding:
    return Embedding("", as_of, NOON, np.array(vector, np.float32))


def publish(
    tables: Tables, space_id: str, as_of: date, revision: int, state: str = PUBLISHED, gates: str = '{"dim": 2}',
    **vectors: list[float],
) -> None:  # fmt: skip
    """Write a snapshot with these vectors, and its row of the ledger."""
    values = {"space_id": space_id, "as_of": as_of, "revision": revision}
    rows = sorted((int(bucket_of(pa.array([user]))[0]), user, vector) for user, vector in vectors.items())
    buckets, users, matrix = (list(column) for column in zip(*rows, strict=True))
    embedding = listed(np.array(matrix, np.float32))
    columns = {"user_bucket": pa.array(buckets, pa.int32()), "user_id": users, "embedding": embedding}
    writer, since = TableWriter(tables.target(USER_EMBEDDINGS)), tables.version(USER_EMBEDDINGS)
    writer.write(pa.table(columns), values)
    tables.commit(USER_EMBEDDINGS, writer.close(), replacing=lambda of: of == values, since=since)
    key = f"{space_id}-{as_of}-{revision}"
    record_snapshots(
        tables, [Snapshot(key, space_id, as_of, revision, state, "x", len(users), NOON, NOON, gates)]
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    """Two spaces that are ready, of which s1 serves; its newest snapshot is the second revision of the 2nd of May."""
    tables = open_tables(config, None)
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=D1, content_hash="c")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s1"))
    publish(tables, "s1", D1, 3, a=[1, 1], former=[9, 9])
    publish(tables, "s1", D2, 1, a=[2, 2], b=[3, 3])
    publish(tables, "s1", D2, 2, a=[4, 5], b=[6, 7])
    publish(tables, "s1", D3, 1, STAGED, a=[8, 8])
    publish(tables, "s2", D3, 1, a=[-1, -2])
    return tables


def look_up(
    tables: Tables, user_ids: list[str], online: Any = None, space: str | None = None
) -> list[Embedding | None]:
    return newest_vectors(tables, user_ids, space=space, online=online)  # type: ignore[arg-type]


def write_config(folder: Path, config: Config) -> Path:
    file = folder / "userrep.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True, by_alias=True)))
    return file


def as_values(embeddings: list[Embedding | None]) -> list[tuple[Any, ...] | None]:
    return [None if embedding is None else (*embedding[:3], embedding.vector.tolist()) for embedding in embeddings]


def test_of_a_snapshot_the_newest_published_revision_is_read_in_the_order_asked_for(tables: Tables) -> None:
    embeddings = look_up(tables, ["b", "unknown", "a", "former", "b"])
    assert as_values(embeddings) == [
        ("s1", D2, None, [6, 7]), None, ("s1", D2, None, [4, 5]), None, ("s1", D2, None, [6, 7]),
    ]  # fmt: skip
    assert all(embedding.vector.dtype == np.float32 for embedding in embeddings if embedding is not None)


def test_a_streamed_vector_is_taken_only_if_its_date_is_later_or_the_snapshot_lacks_the_user(tables: Tables) -> None:
    online = Online(
        "s1", later=streamed(D3, 1, 1), a=streamed(D3, 2, 2), b=streamed(D2, 3, 3), only_streamed=streamed(D1, 4, 4)
    )
    embeddings = look_up(tables, ["later", "a", "b", "only_streamed", "unknown"], online)
    assert as_values(embeddings) == [
        ("s1", D3, NOON, [1, 1]),
        ("s1", D3, NOON, [2, 2]),
        ("s1", D2, None, [6, 7]),  # of one date, the snapshot's
        ("s1", D1, NOON, [4, 4]),
        None,
    ]
    assert online.asked == ["later", "a", "b", "only_streamed", "unknown"]


def test_a_space_that_is_named_is_looked_up_instead_of_the_one_that_serves(tables: Tables) -> None:
    online = Online("s2", b=streamed(D3, 7, 7))
    embeddings = look_up(tables, ["a", "b"], online, "s2")
    assert as_values(embeddings) == [("s2", D3, None, [-1, -2]), ("s2", D3, NOON, [7, 7])]


def test_a_snapshot_from_before_widths_were_recorded_is_read_as_it_is(tables: Tables) -> None:
    publish(tables, "s1", D3, 2, gates="", a=[1, 2, 3])
    online = Online("s1", b=streamed(D3, 4, 4))
    assert as_values(look_up(tables, ["a", "b"], online)) == [
        ("s1", D3, None, [1, 2, 3]), ("s1", D3, NOON, [4, 4]),
    ]  # fmt: skip


def test_vectors_of_another_width_in_the_online_store_are_refused(tables: Tables) -> None:
    for as_of in (D1, D3):
        online = Online("s1", b=streamed(as_of, 1, 2, 3))
        with pytest.raises(
            UserrepError, match=r"vectors of another width for space s1, expected 2, got 3\. Give each root"
        ):
            look_up(tables, ["a", "b"], online)


def test_a_promotion_and_a_new_snapshot_are_noticed_after_ten_seconds(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(user_lookup, "time", SimpleNamespace(monotonic=lambda: now))
    assert as_values(look_up(tables, ["a"])) == [("s1", D2, None, [4, 5])]
    promote(tables, find_space(tables, "s2"))
    now = 109.0
    assert as_values(look_up(tables, ["a"])) == [("s1", D2, None, [4, 5])]
    now = 111.0
    assert as_values(look_up(tables, ["a"])) == [("s2", D3, None, [-1, -2])]


def test_a_space_that_cannot_be_served_is_refused(tables: Tables) -> None:
    add_candidate(tables, space_id="s3", lineage_id="l1", trained_until=D1, content_hash="c")
    with pytest.raises(UsageError, match=r"^lookup: space s3 has no published snapshot"):
        look_up(tables, ["a"], space="s3")
    retire(tables, find_space(tables, "s2"))
    with pytest.raises(UsageError, match=r"^lookup: space s2 is retired, .* Serving space: s1\. Use that space, and"):
        look_up(tables, ["a"], space="s2")
    with pytest.raises(UsageError, match=r"^lookup: space s4: not in the registry"):
        look_up(tables, ["a"], space="s4")


def test_tables_in_a_catalog_are_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, config_of(tmp_path, root=None, catalog="main", schema="users", artifacts="/models"))
    with pytest.raises(UsageError, match=r"lookup: not available for tables in a catalog\. Join embeddings with Spark"):
        lookup(["a"], config=config)


def test_the_configuration_is_named_by_the_caller_or_the_environment(
    tables: Tables, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(tmp_path, config)
    monkeypatch.delenv("USERREP_CONFIG", raising=False)
    with pytest.raises(UsageError, match=r"lookup: no configuration file\. Pass config= or set USERREP_CONFIG"):
        lookup(["a"])
    monkeypatch.setenv("USERREP_CONFIG", str(file))
    assert as_values(lookup(["a"])) == [("s1", D2, None, [4, 5])]
    monkeypatch.setenv("USERREP_CONFIG", str(tmp_path / "nowhere.yaml"))
    assert as_values(lookup(["a"], config=file, space="s2")) == [("s2", D3, None, [-1, -2])]
    with pytest.raises(UsageError, match=r"lookup: user ids must be texts, got 7\. Convert them with str\(\)\."):
        lookup(["a", 7], config=file)  # type: ignore[list-item]

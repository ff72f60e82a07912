"""Segments of a root with planted tastes: names, ids that survive a rotation of the space, moves, and erased users."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import ortho_group

from tests.support.explained_world import (
    AS_OF,
    DIM,
    NUM_USERS,
    TASTES,
    World,
    add_space,
    explained_world,
    publish_vectors,
)
from userrep.errors import UsageError
from userrep.sources.tombstones import add_tombstones
from userrep.spaces.mapping import LinearMap, save_map
from userrep.spaces.registry import find_space
from userrep.store.schemas import EXPORTS
from userrep.workflows.segments import lines_of, read_previous, write_segments

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return explained_world(tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="module")
def first(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out") / "first"
    return out, write_segments(world.tables, world.config, world.space, world.snapshot, str(out), num_segments=4)


def segments_in(out: Path) -> dict[str, str]:
    rows = pq.read_table(out)
    assert rows.column_names == ["user_id", "as_of", "segment"]
    assert rows["as_of"].unique().to_pylist() == [AS_OF]
    return dict(zip(rows["user_id"].to_pylist(), rows["segment"].to_pylist(), strict=True))


def taste_of(world: World, segments: dict[str, str]) -> dict[str, Counter[str]]:
    """Return the tastes of each segment's users."""
    tastes: dict[str, Counter[str]] = {}
    for user_id, taste in zip(world.user_ids, world.taste_N, strict=True):
        if user_id in segments:
            tastes.setdefault(segments[user_id], Counter())[TASTES[taste]] += 1
    return tastes


def test_planted_tastes_become_segments_that_are_named_after_them(
    world: World, first: tuple[Path, dict[str, Any]]
) -> None:
    out, manifest = first
    segments = segments_in(out)
    assert len(segments) == NUM_USERS
    tastes = taste_of(world, segments)
    for each in manifest["segments"]:
        ((taste, num),) = tastes[each["segment"]].items()  # one taste only
        assert each["num_users"] == num == NUM_USERS / 4
        assert each["share"] == 0.25
        assert taste in each["name"]
        assert ("country de" in each["name"]) == (taste == "christmas")
        assert not each["is_new"]
    assert json.loads((out / "_manifest.json").read_text())["segments"] == json.loads(json.dumps(manifest["segments"]))
    assert [row.path for row in world.tables.ledger(EXPORTS)] == [str(out)]
    assert any("christmas" in line for line in lines_of(manifest, str(out)))


def test_segments_keep_their_ids_through_the_map_of_a_rotated_space(
    world: World, first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    rotation_DD = ortho_group.rvs(DIM, random_state=2).astype(np.float32)
    new = add_space(world.tables, "s002-b", world.space.lineage_id, world.layout, world.scaler,
                    np.zeros((DIM, world.layout.width), np.float32))  # fmt: skip
    there = publish_vectors(world.tables, new, world.user_ids, world.z_ND @ rotation_DD)
    previous = read_previous(str(first[0]))
    with pytest.raises(UsageError, match=r"no map to the coordinates of space s001-a\. Fit one with `userrep spaces"):
        write_segments(world.tables, world.config, new, there, str(tmp_path / "x"), num_segments=4, previous=previous)
    fitted = LinearMap(rotation_DD.T.copy(), np.zeros(DIM, np.float32))
    save_map(world.tables, new, world.space, fitted, agreement={}, as_ofs=[AS_OF])
    new = find_space(world.tables, "s002-b")
    for num_segments in (4, 5):  # seeded by the previous segments, and fresh
        out = tmp_path / f"of {num_segments}"
        manifest = write_segments(
            world.tables, world.config, new, there, str(out), num_segments=num_segments, previous=previous
        )
        before, now = segments_in(first[0]), segments_in(out)
        stayed = sum(before[user_id] == now[user_id] for user_id in before)
        assert stayed >= (NUM_USERS if num_segments == 4 else 0.8 * NUM_USERS)
        expected = Counter(zip(before.values(), (now[user_id] for user_id in before), strict=True))
        assert {(move["from"], move["to"]): move["num_users"] for move in manifest["moves"]} == expected
        new_ids = {each["segment"] for each in manifest["segments"] if each["is_new"]}
        assert new_ids == ({"s05"} if num_segments == 5 else set())
        assert manifest["num_ids"] == num_segments


def test_new_and_missing_users_move_from_and_to_no_segment(
    world: World, first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(first[0], earlier)
    (part,) = earlier.glob("*.parquet")
    rows = pq.read_table(part)
    gone = pa.table({"user_id": ["gone"], "as_of": rows["as_of"][:1], "segment": ["s02"]}, rows.schema)
    pq.write_table(pa.concat_tables([rows.slice(20), gone]), part)
    manifest = write_segments(
        world.tables, world.config, world.space, world.snapshot, str(tmp_path / "out"), num_segments=4,
        previous=read_previous(str(earlier)),
    )  # fmt: skip
    moves = {(move["from"], move["to"]): move["num_users"] for move in manifest["moves"]}
    assert moves["s02", None] == 1
    assert sum(num for (before, _), num in moves.items() if before is None) == 20
    assert sum(each["num_users"] for each in manifest["segments"]) == NUM_USERS
    assert f"0 of {NUM_USERS - 20} users of both snapshots have moved" in lines_of(manifest, "out")


def test_erased_users_are_in_no_segment(world: World, tmp_path: Path) -> None:
    erased = world.user_ids[3:6]
    add_tombstones(world.tables, erased)
    out = tmp_path / "out"
    manifest = write_segments(world.tables, world.config, world.space, world.snapshot, str(out), num_segments=4)
    assert set(segments_in(out)) == {*world.user_ids} - {*erased}
    assert sum(each["num_users"] for each in manifest["segments"]) == manifest["num_rows"] == NUM_USERS - 3


def test_what_is_no_folder_of_segments_is_refused_as_previous(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"--previous .*: no segments, since it has no manifest.json\. Name the --out of an earlier `userrep ex",
    ):
        read_previous(str(tmp_path))
    (tmp_path / "_manifest.json").write_text('{"what": "embeddings", "state": "complete"}')
    with pytest.raises(UsageError, match=r"has complete embeddings\. Name the --out"):
        read_previous(str(tmp_path))
    (tmp_path / "_manifest.json").write_text('{"what": "segments", "state": "incomplete"}')
    with pytest.raises(UsageError, match=r"has incomplete segments\. Name the --out"):
        read_previous(str(tmp_path))
    for damaged in (
        "[]",
        '{"what": "segments", "state": "complete"}',
        '{"what": "segments", "state": "complete", "segments": [1]}',
    ):
        (tmp_path / "_manifest.json").write_text(damaged)
        with pytest.raises(UsageError, match=r"no segments \(.+\)\. Name the --out"):
            read_previous(str(tmp_path))

"""Audiences: planted look-alikes are found in one pass, and what is left out, written, recorded and refused."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.audience_world import DAY, SPACE, AudienceWorld, audience_world
from userrep.audiences import snapshot_users
from userrep.audiences.audience import Audience, build_audience
from userrep.errors import UsageError
from userrep.sources.id_files import IdFile, read_id_file
from userrep.sources.tombstones import add_tombstones
from userrep.store.arrow import combined
from userrep.store.schemas import EXPORTS, USER_EMBEDDINGS

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> AudienceWorld:
    """A world that tests only read."""
    return audience_world(tmp_path_factory.mktemp("world"))


def build(world: AudienceWorld, seeds: Sequence[str], size: int, **options: Any) -> Audience:
    settings = options.pop("settings", None)
    listed = IdFile(pa.array(seeds, pa.string()), options.pop("space_ids", frozenset()))
    return build_audience(world.tables, settings, listed, size, **options)


def ids_of(audience: Audience) -> list[str]:
    return audience.users["user_id"].to_pylist()  # type: ignore[no-any-return]


def test_planted_look_alikes_are_recovered(shared: AudienceWorld, lines: list[str]) -> None:
    seeds, hidden = shared.alike[::2], shared.alike[1::2]
    audience = build(shared, seeds, len(hidden))
    assert np.isin(ids_of(audience), hidden).mean() > 0.8  # a random audience has a share of 0.05
    assert not set(ids_of(audience)) & set(seeds)
    assert audience.users["rank"].to_pylist() == list(range(1, len(hidden) + 1))
    assert audience.users["score"].to_pylist() == sorted(audience.users["score"].to_pylist(), reverse=True)
    assert set(audience.users["as_of"].to_pylist()) == {DAY}
    assert set(audience.users["space_id"].to_pylist()) == {SPACE}
    assert audience.facts["seeds"] == {"given": len(seeds), "erased": 0, "unknown": 0, "used": len(seeds)}
    assert lines == []


def test_scores_are_probabilities_of_being_on_the_list(shared: AudienceWorld) -> None:
    seeds = shared.alike[::2]
    audience = build(shared, seeds, shared.made.num_users - len(seeds)).users
    # Every second look-alike is a seed, so a user who is one with probability p is on the list with p / 2. Of users
    # with a score s who are not on the list, a share of s / (1 - s) are then look-alikes.
    score_N, is_alike_N = audience["score"].to_numpy(), np.isin(audience["user_id"].to_pylist(), shared.alike)
    expected_N = score_N / (1 - score_N)
    for part in np.array_split(np.arange(len(score_N)), 20)[:3]:
        assert is_alike_N[part].mean() == pytest.approx(expected_N[part].mean(), abs=0.15)
    assert expected_N.sum() == pytest.approx(is_alike_N.sum(), rel=0.25)


def test_the_table_of_sizes_reports_what_hidden_seeds_show(shared: AudienceWorld) -> None:
    seeds, hidden = shared.alike[::2], shared.alike[1::2]
    audience = build(shared, seeds, 300)
    (row,) = [row for row in audience.facts["sizes"] if row["size"] == 300]
    recall = np.isin(hidden, ids_of(audience)).mean()  # hidden look-alikes are found as held-out seeds are
    # The audience has no seeds, which would take places of other users.
    assert row["seeds_found"] == pytest.approx(recall, abs=0.15)
    assert row["precision"] == pytest.approx(row["seeds_found"] * len(seeds) / 300, rel=0.01)
    assert row["lift"] == pytest.approx(row["precision"] / (len(seeds) / shared.made.num_users), rel=0.01)
    assert [row["size"] for row in audience.facts["sizes"]] == [75, 150, 300, 600, 1200]
    assert audience.facts["auc"] > 0.9


def test_excluded_and_erased_users_are_left_out(tmp_path: Path) -> None:
    world = audience_world(tmp_path)
    seeds, hidden = world.alike[::2], world.alike[1::2]
    opted_out, erased = hidden[:20], [*hidden[20:30], seeds[0]]
    add_tombstones(world.tables, erased)
    audience = build(world, seeds, 500, exclude=pa.array([*opted_out, "stranger"]))
    assert not set(ids_of(audience)) & {*opted_out, *erased, *seeds}
    assert set(hidden[30:]) & set(ids_of(audience))
    assert (audience.facts["num_excluded"], audience.facts["seeds"]["erased"]) == (20, 1)


def test_a_row_group_in_which_all_users_are_left_out_is_passed_over(shared: AudienceWorld) -> None:
    (file, *_) = shared.tables.files(USER_EMBEDDINGS)
    group = combined(pq.ParquetFile(file.uri).read_row_group(0, columns=["user_id"])["user_id"]).cast(pa.string())
    audience = build(shared, shared.alike[::2], 100, exclude=group)
    assert len(ids_of(audience)) == 100
    assert not set(ids_of(audience)) & set(group.to_pylist())


def test_one_pass_reads_each_row_group_once_and_keeps_few_rows(
    shared: AudienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, kept = [], []
    read_groups, best = snapshot_users.read_row_groups, snapshot_users._best

    def counted(uri: str, groups: Any, columns: Any, **how: Any) -> pa.Table:
        read.extend((uri, int(group)) for group in groups)
        return read_groups(uri, groups, columns, **how)

    def measured(scores: pa.Table, num_users: int) -> pa.Table:
        kept.append(len(scores))
        return best(scores, num_users)

    monkeypatch.setattr(snapshot_users, "read_row_groups", counted)
    monkeypatch.setattr(snapshot_users, "_best", measured)
    users = snapshot_users.SnapshotUsers(shared.tables, shared.made)
    rows = users.best(lambda rows: pa.table([rows["user_id"], pa.repeat(0.5, len(rows))], snapshot_users.SCORES), 50)
    assert len(read) == len(set(read)) > 5
    largest = max(snapshot_users.parquet_footer(uri).row_group(k).num_rows for uri, k in read)
    assert max(kept) <= 2 * 50 + largest
    assert rows["user_id"].to_pylist() == sorted(shared.user_ids.to_pylist())[:50]  # equal scores: by user id


def test_a_protected_attribute_does_not_decide(shared: AudienceWorld) -> None:
    old = np.flatnonzero(shared.age_N == "50+")
    seeds = shared.user_ids.take(pa.array(old[::4])).to_pylist()  # nothing but their age sets them apart
    share = {}
    for protected in ((), ("age",)):
        audience = build(shared, seeds, 300, settings=shared.settings(*protected))
        share[protected] = np.isin(ids_of(audience), shared.user_ids.take(pa.array(old)).to_pylist()).mean()
    rest = (len(old) - len(seeds)) / (len(shared.user_ids) - len(seeds))
    assert share[()] > 0.6
    assert share["age",] == pytest.approx(rest, abs=0.1)
    (probe,) = audience.facts["protected"]["probes"]
    assert (probe["attribute"], audience.facts["protected"]["num_removed_dims"]) == ("age", 1)
    assert probe["auc_before"] > 0.8
    assert probe["auc_after"] == pytest.approx(0.5, abs=0.06)


def test_a_folder_has_the_rows_and_is_recorded_for_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.store.export_files.ROWS", 40)
    world = audience_world(tmp_path)
    audience = build(world, world.alike[::2], 100)
    manifest = audience.write(str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out")
    assert rows.equals(audience.users)
    assert rows.schema.names == ["user_id", "score", "rank", "as_of", "space_id"]
    assert [row.path for row in world.tables.ledger(EXPORTS)] == [str(tmp_path / "out")]
    stored = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert (stored["state"], stored["what"], stored["num_rows"], len(stored["sha256"])) == (
        "complete",
        "audience",
        100,
        3,
    )
    assert (stored["snapshot_id"], stored["as_of"], stored["space_id"]) == (world.made.snapshot_id, str(DAY), SPACE)
    assert stored["sizes"] == manifest["sizes"]
    with pytest.raises(UsageError, match="the folder has a complete export"):
        audience.write(str(tmp_path / "out"))
    audience.write(str(tmp_path / "copy"), recorded=False)
    assert len(world.tables.ledger(EXPORTS)) == 1
    again = read_id_file(str(tmp_path / "out"), "--seeds")  # an audience is a seed list
    assert again == IdFile(combined_ids(rows), frozenset({SPACE}))
    assert len(build(world, again.user_ids.to_pylist(), 50, space_ids=again.space_ids).users) == 50


def test_users_erased_since_the_audience_was_built_are_not_written(tmp_path: Path) -> None:
    world = audience_world(tmp_path)
    audience = build(world, world.alike[::2], 20)
    erased, *others = audience.users["user_id"].to_pylist()
    add_tombstones(world.tables, [erased])
    assert audience.write(str(tmp_path / "out"))["num_rows"] == 19
    rows = pq.read_table(tmp_path / "out")
    assert rows["user_id"].to_pylist() == others
    assert rows["rank"].to_pylist() == list(range(2, 21))


def combined_ids(rows: pa.Table) -> pa.StringArray:
    return rows["user_id"].combine_chunks()


def test_few_unknown_seeds_are_reported_and_many_are_refused(shared: AudienceWorld, lines: list[str]) -> None:
    seeds = [*shared.alike[:30], *(f"new{k}" for k in range(10))]
    build(shared, seeds, 10)
    assert lines == ["seeds: 10 of 40 (25%) are not in snapshot s001-a-20240501-r1, such as new0, new1, new2"]
    said = r"19 of 29 users are in the snapshot, but at least 20 must be; 10 are not in snapshot s001-a-20240501-r1"
    with pytest.raises(UsageError, match=rf"seeds: {said}, such as new0, new1, new2\. Check that"):
        build(shared, seeds[11:], 10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space_ids": frozenset({"s002-b"})}, r"seeds: from space s002-b, but the audience is of space s001-a"),
        ({"size": 2951}, r"size: must be between 1 and 2,950, .*, got 2,951\. Choose a size in this range"),
        ({"size": 0}, r"size: must be between 1 and 2,950, .*, got 0\."),
        ({"as_of": date(2024, 5, 2)}, r"no snapshot of 2024-05-02; .* `userrep pipeline --as-of 2024-05-02`"),
        ({"space": "s002-b"}, r"s002-b has no published snapshot"),
        ({"space": "s009-x"}, r"s009-x"),
    ],
)
def test_what_cannot_be_an_audience_is_refused(shared: AudienceWorld, options: dict[str, Any], said: str) -> None:
    size = options.pop("size", 10)
    with pytest.raises(UsageError, match=said):
        build(shared, shared.alike[:50], size, **options)


def test_a_list_of_nearly_all_users_is_refused(tmp_path: Path) -> None:
    world = audience_world(tmp_path, num_users=300)
    with pytest.raises(
        UsageError, match=r"seeds: 50 users of .* are not seeds, at least 100 are needed .* shorter list"
    ):
        build(world, world.user_ids[:250].to_pylist(), 10)

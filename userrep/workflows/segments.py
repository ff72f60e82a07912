"""``userrep explain segments``: segments of a snapshot's users, with names, and with the ids of an earlier run.

Shapes: N users, D dimensions, S segments, P previous segments, Q dimensions of the previous space.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.config import Config
from userrep.errors import UsageError, in_one_line, plural
from userrep.explanations.item_labels import read_item_labels
from userrep.explanations.lifts import lifts_by_segment, name_of
from userrep.explanations.sampled_users import SampledUsers, sample_users
from userrep.explanations.segments import Convert, fit_centers, ids_of, match, nearest, seeds
from userrep.explanations.user_labels import label_users
from userrep.features.spec import FeatureSpec
from userrep.logs import in_columns
from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spaces.mapping import load_map
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import stacked
from userrep.store.export_files import Part, read_manifest
from userrep.store.export_folder import recorded_folder, write_folder_of_parts
from userrep.store.filesystem import absolute, folder_names, open_parquet
from userrep.store.schemas import USER_EMBEDDINGS, fields_of
from userrep.store.tables import Tables
from userrep.workflows.export import MOST_ROWS_HERE, ExportedRows

SEGMENTS = "segments"
_COLUMNS = "user_id STRING, as_of DATE, segment STRING"
_MOST_MOVES = 10  # printed; the manifest has all
Moves = Counter[tuple[str | None, str | None]]


class Previous(NamedTuple):
    """The segments of an earlier run: folder and manifest, and the ids and centers in the manifest."""

    folder: str
    manifest: dict[str, Any]
    ids: list[str]
    centers_PQ: NDArray[np.float32]


def read_previous(out: str) -> Previous:
    """Read the manifest of earlier segments. Raises UsageError if the folder has no complete segments."""
    cure = "Name the --out of an earlier `userrep explain segments`"
    folder = absolute(out.rstrip("/"))
    try:
        manifest = read_manifest(folder)
        if (manifest["what"], manifest["state"]) != (SEGMENTS, "complete"):
            raise UsageError(f"--previous {out}: has {manifest['state']} {manifest['what']}. {cure}.")
        centers_PQ = np.array([segment["center"] for segment in manifest[SEGMENTS]], np.float32)
        return Previous(folder, manifest, [segment["segment"] for segment in manifest[SEGMENTS]], centers_PQ)
    except FileNotFoundError:
        raise UsageError(f"--previous {out}: no segments, since it has no manifest.json. {cure}.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--previous {out}: no segments ({in_one_line(error)}). {cure}.") from None


def write_segments(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, out: str, *, num_segments: int,
    previous: Previous | None = None, recorded: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Divide a snapshot's users into segments, and write user_id, as_of and segment as Parquet; return the manifest.

    K-means is fitted on a sample of 20,000 users. It starts from the ``previous`` segments if their number is the same,
    so that a segment keeps its place. Then segments are matched to the previous ones by their centers, through the map
    between the spaces if these differ. ``recorded``: record the folder, so that ``userrep forget`` erases users there.

    Cost: one pass over the snapshot, and over the sampled users' features and tiles, without Spark up to a million
    users below a root. With ``previous``, also a join of both folders by user.

    Raises
    ------
    UsageError
        If the space has no map to the space of ``previous``, or ``sample_users`` or ``recorded_folder`` raises it.
    """
    convert = _to_previous(tables, space, previous)
    users = sample_users(tables, config, space, snapshot)
    centers_SD, ids, num_ids = _identified(users.z_ND, num_segments, previous, convert)
    segments = _described(tables, config, users, snapshot, centers_SD, ids=ids)
    assign = partial(_assigned, centers_SD=centers_SD, ids=pa.array(ids), erased=read_tombstones(tables))
    rows = ExportedRows(USER_EMBEDDINGS, snapshot.key, snapshot.num_users, fields_of(_COLUMNS), assign)
    details: dict[str, Any] = {
        "space_id": space.space_id,
        "snapshot_id": snapshot.snapshot_id,
        "num_sampled": len(users),
        "previous": previous and {"folder": previous.folder, "snapshot_id": previous.manifest["snapshot_id"]},
        "num_ids": num_ids,
    }

    def write(folder: str) -> Sequence[Part]:
        parts = rows.write(tables, folder)
        moves = _moves(tables, folder, {part.name: part.num_rows for part in parts}, previous)
        details.update(_counted(segments, moves, previous))  # the manifest is made after the parts
        return parts

    with recorded_folder(tables, out, SEGMENTS, snapshot.as_of, recorded=recorded):
        return write_folder_of_parts(
            out, SEGMENTS, snapshot.as_of, columns=rows.column_types, details=details, write=write
        )


def _counted(segments: Sequence[dict[str, Any]], moves: Moves, previous: Previous | None) -> dict[str, Any]:
    """Return the segments with their numbers of users; with ``previous``, also the moves, most users first."""
    num_users = Counter[str | None]()
    for (_, id_), num in moves.items():
        num_users[id_] += num
    total = max(1, num_users.total() - num_users[None])
    before = previous.ids if previous else [segment["segment"] for segment in segments]
    counted = [
        {**segment, "num_users": num_users[id_], "share": num_users[id_] / total, "is_new": id_ not in before}
        for segment in segments
        for id_ in [segment["segment"]]
    ]
    if previous is None:
        return {SEGMENTS: counted}
    listed = [{"from": source, "to": target, "num_users": num} for (source, target), num in moves.most_common()]
    ended = sorted({*before} - {segment["segment"] for segment in segments})
    return {SEGMENTS: counted, "ended": ended, "moves": listed}


def _to_previous(tables: Tables, space: Space, previous: Previous | None) -> Convert:
    """Return the conversion of vectors to the coordinates of the previous segments."""
    if previous is None or previous.manifest["space_id"] == space.space_id:
        return lambda z_ND: z_ND
    return load_map(tables, space, find_space(tables, previous.manifest["space_id"]))


def _identified(
    z_ND: NDArray[np.float32], num_segments: int, previous: Previous | None, convert: Convert
) -> tuple[NDArray[np.float32], list[str], int]:
    """Return the centers of the segments, their ids, and how many ids were ever given."""
    if previous is None:
        return fit_centers(z_ND, num_segments), ids_of(num_segments, {}, [], 0), num_segments
    is_seeded = len(previous.ids) == num_segments
    centers_SD = fit_centers(z_ND, num_segments, seeds(z_ND, previous.centers_PQ, convert) if is_seeded else None)
    matched = match(convert(centers_SD), previous.centers_PQ)
    num_used = previous.manifest["num_ids"]
    ids = ids_of(num_segments, matched, previous.ids, num_used)
    return centers_SD, ids, num_used + num_segments - len(matched)


def _described(
    tables: Tables, config: Config, users: SampledUsers, snapshot: Snapshot, centers_SD: NDArray[np.float32],
    *, ids: Sequence[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the id, name, over-represented labels and center of each segment."""
    labels = label_users(tables, FeatureSpec.of(config), users, snapshot.as_of, read_item_labels(tables, config.items))
    lifts = lifts_by_segment(labels, nearest(users.z_ND, centers_SD), len(ids))
    return [
        {"segment": id_, "name": name_of(own), "labels": [asdict(lift) for lift in own], "center": center_D.tolist()}
        for id_, own, center_D in zip(ids, lifts, centers_SD, strict=True)
    ]


def _assigned(
    batch: pa.RecordBatch, *, centers_SD: NDArray[np.float32], ids: pa.Array, erased: Tombstones
) -> pa.RecordBatch:
    """Replace the vectors of a batch by segments. Erased users are left out."""
    batch = batch.filter(pa.array(~erased.mask(batch.column("user_id").cast(pa.string()))))
    segment_N = nearest(stacked(batch.column("embedding"), centers_SD.shape[1]), centers_SD)
    keys = {name: batch.column(name) for name in ("user_id", "as_of") if name in batch.schema.names}
    return pa.record_batch(keys | {"segment": ids.take(pa.array(segment_N))})


def _moves(tables: Tables, folder: str, num_rows: Mapping[str, int], previous: Previous | None) -> Moves:
    """Count users by previous and current segment; None if they are not in the snapshot.

    ``num_rows``: of the parts in ``folder``. Up to a million users of each run are joined here, more by Spark.
    """
    names = {f"{folder}/{name}" for name in num_rows}
    if previous is None:
        moves: Moves = Counter()
        for uri in sorted(names):
            counts = open_parquet(uri).read(columns=["segment"])["segment"].value_counts().to_pylist()
            moves.update({(None, count["values"]): count["counts"] for count in counts})
        return moves
    before = {f"{previous.folder}/{name}" for name in folder_names(previous.folder) if name.startswith("part-")}
    if max(sum(num_rows.values()), previous.manifest["num_rows"]) <= MOST_ROWS_HERE:
        old, new = (
            pa.concat_tables([open_parquet(uri).read(columns=["user_id", "segment"]) for uri in sorted(uris)])
            for uris in (before, names)
        )
        pairs = old.rename_columns(["user_id", "before"]).join(new, "user_id", join_type="full outer")
        rows = pairs.group_by(["before", "segment"]).aggregate([([], "count_all")]).to_pylist()
        return Counter({(row["before"], row["segment"]): row["count_all"] for row in rows})
    earlier, now = (tables.spark.read.parquet(*sorted(uris)).select("user_id", "segment") for uris in (before, names))
    joined = earlier.withColumnRenamed("segment", "before").join(now, on="user_id", how="full_outer")
    counted = joined.groupBy("before", "segment").count().collect()  # at most P x S rows
    return Counter({(row.before, row.segment): row["count"] for row in counted})


def lines_of(manifest: Mapping[str, Any], out: str) -> list[str]:
    """Return segments and moves as lines for the terminal."""
    rows = [
        [each["segment"], f"{each['num_users']:,}", f"{each['share']:.1%}", each["name"] + " (new)" * each["is_new"]]
        for each in manifest[SEGMENTS]
    ]
    lines = in_columns(["segment", "users", "share", "name"], rows)
    if moves := [move for move in manifest.get("moves", []) if move["from"] and move["to"]]:
        moved = [move for move in moves if move["from"] != move["to"]]
        num_both, num_moved = (sum(move["num_users"] for move in each) for each in (moves, moved))
        lines += ["", f"{num_moved:,} of {num_both:,} users of both snapshots have moved"]
        cells = [[move["from"], move["to"], f"{move['num_users']:,}"] for move in moved[:_MOST_MOVES]]
        lines += in_columns(["from", "to", "users"], cells) if cells else []
    return [*lines, f"segments of {manifest['as_of']}: {plural(manifest['num_rows'], 'user')} in {out}"]

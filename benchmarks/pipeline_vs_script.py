"""How long does a first run take, compared with a script that an expert would write without this project?

Ours is `userrep pipeline` on Online Retail II as of 2011-10-01, from the log to published snapshots. The peer is
``benchmarks.pipeline_script``, for the same dates, versions of item vectors and epochs. Each runs in its own process.
Ours has no self-check and no MLflow, which the script lacks. Seconds are those of the stages. The start of the process
and of Spark is listed separately (``session_seconds``), as is the example consumer, which the script does not have.
``pipeline_vs_script_untrained`` excludes the training on both sides.

Times are printed only if both compute the same inputs from the same item vectors, and the same embeddings with the same
weights.

    make bench-pipeline-vs-script
    python -m benchmarks.pipeline_vs_script --small     # one run
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answers import rows_of
from benchmarks.pipeline_script import Tiles, encode, features, read_attributes, read_tiles
from benchmarks.report import Line, Skipped, ask, print_lines, progress, ratio_line, seconds_of
from userrep.config import Config, load_config
from userrep.features.ledger import feature_sets, features_table
from userrep.items.versions import versions_of
from userrep.model.artifact import Artifact, load_artifact
from userrep.spaces.registry import artifact_folder, find_space
from userrep.spaces.snapshots import list_snapshots, newest_snapshot
from userrep.store.arrow import combined, stacked
from userrep.store.open import open_tables
from userrep.store.schemas import ITEM_VECTORS, USER_EMBEDDINGS
from userrep.store.tables import Tables

CONFIG = "conf/online_retail_ii.yaml"
AS_OF = date(2011, 10, 1)
_STEPS = {
    "take_inventory", "build_activity_tiles", "train_item_vectors", "build_user_features", "train_autoencoder",
    "embed_users", "publish_snapshot",
}  # fmt: skip


@dataclass(frozen=True)
class FirstRun:
    """A configuration, settings that override it, and the as-of date of the run."""

    config: str = CONFIG
    as_of: date = AS_OF
    settings: tuple[str, ...] = ("tracking.mlflow=false", "quality.self_check=false")

    def of_as_of(self, ordinal: int) -> "FirstRun":
        return replace(self, as_of=date.fromordinal(ordinal))


def measure(run: FirstRun, root: Path, runs: int, *, name: str = "pipeline_vs_script") -> list[Line]:
    """Run both alternately, compare their results, and return both lines: ``name``, and without the training."""
    log = load_config(run.config).events.path
    if log is None or not Path(log).exists():
        raise Skipped(f"{run.config} names a log that is not here: {log}")
    folder = root / name
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    sessions = []
    for k in range(runs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        settings = [f"--set=root={folder / 'root'}", *(f"--set={setting}" for setting in run.settings)]
        command = ["-m", "userrep.cli", "pipeline", "--config", run.config, "--as-of", str(run.as_of), "--json"]
        printed: list[str] = []
        wall = seconds_of(lambda command=command + settings, printed=printed: printed.append(_printed(command)))
        stages = {stage["stage"]: stage["seconds"] for stage in json.loads(printed[0])["stages"]}
        ours.append({name: taken for name, taken in stages.items() if name in _STEPS})
        sessions.append(wall - sum(stages.values()))
        config = load_config(run.config, [f"root={folder / 'root'}", *run.settings])
        plan = plan_of(config, run)
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        script = ["-m", "benchmarks.pipeline_script", str(folder / "plan.json"), str(folder / "script")]
        theirs.append(json.loads(_printed(script)))
        progress(
            f"run {k + 1} of {runs}: ours {sum(ours[-1].values()):.1f} s, the script's {sum(theirs[-1].values()):.1f} s"
        )
        if k == 0:
            check_same(config, plan)
    size = {"log": Path(run.config).stem, "as_ofs": len(plan["as_ofs"]), "cores": os.cpu_count()}
    return [
        _line(name, size, ours, theirs, sessions, without=()),
        _line(f"{name}_untrained", size, ours, theirs, sessions, without=("train", "train_autoencoder")),
    ]


def _line(
    name: str,
    size: Line,
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]],
    sessions: list[float],
    *,
    without: tuple[str, ...],
) -> Line:
    def kept(found: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{step: seconds for step, seconds in run.items() if step not in without} for run in found]

    def medians(found: list[dict[str, float]]) -> dict[str, float]:
        return {step: round(statistics.median(run[step] for run in found), 2) for step in found[0]}

    ours, theirs = kept(ours), kept(theirs)
    return ratio_line(
        name,
        size,
        [(sum(mine.values()), sum(its.values())) for mine, its in zip(ours, theirs, strict=True)],
        peer="DuckDB, SciPy, implicit, scikit-learn, torch",
        session_seconds=round(statistics.median(sessions), 1),
        by_stage=medians(ours),
        peer_by_step=medians(theirs),
    )


def plan_of(config: Config, run: FirstRun) -> dict[str, Any]:
    """Return the dates, versions and epochs of a run, so that the script can do the same."""
    tables = open_tables(config, None)
    space = find_space(tables, None)
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    sets = feature_sets(tables, space.lineage_id)
    versions = versions_of(tables, config, anchor=space.trained_until)
    ahead = max(config.future_days, default=0)
    snapshots = {snapshot.as_of for snapshot in list_snapshots(tables, space.space_id)}
    every = timedelta(days=config.training.as_ofs.every_days)
    last, trained_on = space.trained_until - timedelta(days=ahead), []
    while last in sets and len(trained_on) < config.training.as_ofs.max_dates:
        trained_on.append(last)
        last -= every
    return {
        "config": run.config,
        "as_ofs": sorted(map(str, sets)),
        "versions": sorted({str(versions.valid_at(day)) for day in sets}),
        "version_by_date": {str(day): str(versions.valid_at(day)) for day in sets},
        "trained_on": sorted(map(str, trained_on)),
        "snapshots": sorted(map(str, snapshots)),
        "epochs": int(artifact.manifest.metrics["epochs"]),
    }


def check_same(config: Config, plan: dict[str, Any]) -> None:
    """Check that inputs from our item vectors and embeddings from our weights are the same on two dates."""
    tables = open_tables(config, None)
    space = find_space(tables, None)
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    tiles = read_tiles(config)
    attributes = read_attributes(config, tiles.user_ids)
    for day in (plan["snapshots"][0], plan["snapshots"][-1]):
        vectors = _our_vectors(tables, config, tiles, plan["version_by_date"][day])
        rows = features(artifact.layout, tiles, vectors, attributes, date.fromisoformat(day))
        ids, ours_NF, z_ND = _ours(tables, config, artifact, date.fromisoformat(day))
        if [tiles.user_ids[user] for user in rows.user_N] != ids:
            raise AssertionError(f"users of {day} differ")
        if not np.allclose(rows.x_NF, ours_NF, rtol=0, atol=2e-5):
            worst = np.abs(rows.x_NF - ours_NF).max(axis=0)
            names = [block.name for block in artifact.layout.blocks if worst[block.start : block.stop].max() > 2e-5]
            raise AssertionError(f"inputs of {day} differ in {', '.join(names)}, by up to {worst.max():.2g}")
        theirs_ND = encode(artifact.encoder(), artifact.scaler.apply(artifact.layout, rows.x_NF))
        if not np.allclose(theirs_ND, z_ND, rtol=0, atol=1e-3):
            raise AssertionError(f"embeddings of {day} differ by up to {np.abs(theirs_ND - z_ND).max():.2g}")


def _our_vectors(tables: Tables, config: Config, tiles: Tiles, version: str) -> dict[str, np.ndarray]:
    """Read the item vectors of a version, in the script's order of items."""
    found, place = {}, {item: k for k, item in enumerate(tiles.item_ids)}
    lineage_id = find_space(tables, None).lineage_id
    key = {"lineage_id": lineage_id, "valid_from": date.fromisoformat(version)}
    for modality, vectors in config.item_vectors.items():
        rows = rows_of(tables, ITEM_VECTORS, key | {"modality": modality}, ["item_id", "vector"])
        vector_ID = np.zeros((len(tiles.item_ids), vectors.dim), np.float32)
        known = [k for k, item in enumerate(rows["item_id"].to_pylist()) if item in place]
        places = [place[rows["item_id"][k].as_py()] for k in known]
        vector_ID[places] = stacked(combined(rows["vector"]), vectors.dim)[known]
        found[modality] = vector_ID
    return found


def _ours(tables: Tables, config: Config, artifact: Artifact, day: date) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the sorted ids of a date's users, with our inputs before scaling and our embeddings."""
    space = find_space(tables, None)
    features_rows = rows_of(tables, features_table(config, space.lineage_id), {"as_of": day}, None)
    x_NF = artifact.layout.raw(features_rows.combine_chunks().to_batches()[0])
    snapshot = newest_snapshot(tables, space.space_id, day)
    vectors = rows_of(tables, USER_EMBEDDINGS, snapshot.key, ["user_id", "embedding"])
    z_ND = stacked(combined(vectors["embedding"]), artifact.manifest.model.latent_dim)
    ids = vectors["user_id"].to_pylist()
    is_kept = np.isin(features_rows["user_id"].to_numpy(), ids)
    return ids, x_NF[is_kept], z_ND


def _printed(command: list[str]) -> str:
    """Run a Python module in a process of its own, and return its output."""
    ran = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    asked = ask("pipeline_vs_script", FirstRun(), small=FirstRun(), runs=3, unit="as-of", number=AS_OF.toordinal(),
                resized=FirstRun().of_as_of)  # fmt: skip
    print_lines("pipeline_vs_script", lambda: measure(asked.size, asked.root, asked.runs))

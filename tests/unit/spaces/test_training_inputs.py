"""Training rows that a killed run has made: used again if nothing that they are made from has changed."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import config_of
from tests.unit.inference.test_model import layout_of, scaler_of
from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.targets import TargetLayout
from userrep.items.versions import Versions
from userrep.model.frozen_folder import read_tensors
from userrep.spaces import training_inputs as module
from userrep.spaces.training_inputs import (
    TrainingInputs,
    TrainingPlan,
    _read,
    _write,
    inputs_key,
    training_folder,
    training_inputs,
)
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS
from userrep.store.sql import sql_in
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 15)
FUTURES = (0, 2, 7)  # days after an as-of date whose features training rows are made from


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    tables = open_tables(config, None)
    build_features(tables, [day + timedelta(days=days) for day in (D1, D2) for days in FUTURES])
    return tables


@pytest.fixture
def inputs(tmp_path: Path) -> TrainingInputs:
    """Inputs of two shards whose files exist."""
    files = [tmp_path / "rows" / f"{name}.parquet" for name in "abc"]
    files[0].parent.mkdir()
    for file in files:
        file.touch()
    layout = layout_of()
    shards = {"train": [[str(files[0]), str(files[1])], []], "valid_users": [[], [str(files[2])]]}
    return TrainingInputs(shards, layout, TargetLayout.of(layout.spec, [7]), scaler_of(layout), None)


CANDIDATES = {"vector_0": np.ones((3, 2), np.float32), "log_share_0": np.zeros(3, np.float32)}
PLAN = TrainingPlan(Versions("l1", D1, 28, frozenset()), [D1, D2], until=D2)


def build_features(tables: Tables, dates: Sequence[date], **more: Any) -> None:
    row = {"lineage_id": "l1", "log_hash": "x", "sides_hash": "x", "num_users": 10, "num_inexact": 0}
    row |= {"built_at": datetime(2024, 6, 1)} | more
    rows = [row | {"as_of": day, "valid_from": day} for day in dates]
    tables.add(FEATURE_SETS, rows, replacing=sql_in("as_of", list(dates)))


def assert_same(found: TrainingInputs | None, expected: TrainingInputs) -> None:
    assert found is not None
    assert (found.files, found.layout, found.targets) == (expected.files, expected.layout, expected.targets)
    assert found.candidates == expected.candidates
    np.testing.assert_array_equal(found.scaler.center_F, expected.scaler.center_F)
    np.testing.assert_array_equal(found.scaler.scale_F, expected.scaler.scale_F)


def test_inputs_are_read_back_as_they_were_written(tmp_path: Path, inputs: TrainingInputs) -> None:
    folder = str(tmp_path / "inputs")
    assert _read(folder, "key") is None
    written = _write(folder, "key", inputs, CANDIDATES)
    assert_same(_read(folder, "key"), written)
    assert _read(folder, "another key") is None
    assert written.candidates is not None
    tensors = read_tensors(Path(written.candidates[0]).read_bytes(), "candidates", cure="")
    for name, candidates in CANDIDATES.items():
        np.testing.assert_array_equal(tensors[name], candidates)


def test_inputs_of_a_model_that_predicts_no_items_have_none(tmp_path: Path, inputs: TrainingInputs) -> None:
    folder = str(tmp_path / "inputs")
    assert _write(folder, "key", inputs, {}) == inputs
    assert_same(_read(folder, "key"), inputs)


def test_inputs_whose_items_were_removed_are_none(tmp_path: Path, inputs: TrainingInputs) -> None:
    written = _write(str(tmp_path / "inputs"), "key", inputs, CANDIDATES)
    assert written.candidates is not None
    Path(written.candidates[0]).unlink()
    assert _read(str(tmp_path / "inputs"), "key") is None


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_inputs_of_which_a_file_is_torn_or_missing_are_none(tmp_path: Path, inputs: TrainingInputs, name: str) -> None:
    folder = tmp_path / "inputs"
    _write(str(folder), "key", inputs, CANDIDATES)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert _read(str(folder), "key") is None
    (folder / name).unlink()
    assert _read(str(folder), "key") is None


def test_inputs_whose_rows_were_removed_are_none(tmp_path: Path, inputs: TrainingInputs) -> None:
    _write(str(tmp_path / "inputs"), "key", inputs, CANDIDATES)
    Path(inputs.files["valid_users"][1][0]).unlink()
    assert _read(str(tmp_path / "inputs"), "key") is None


def test_the_key_follows_from_what_rows_are_made_of(tables: Tables, config: Config, tmp_path: Path) -> None:
    def key(of: Config = config, lineage_id: str = "l1", as_ofs: Sequence[date] = (D1, D2)) -> str:
        return inputs_key(tables, of, lineage_id, as_ofs)

    first = key()
    assert first == key(as_ofs=(D2, D1))
    assert first == key(config_of(tmp_path, training={"learning_rate": 0.5}))
    others = [
        key(config_of(tmp_path, model={"next_items_weight": 0})),
        key(as_ofs=(D1,)),
        key(config_of(tmp_path, training={"future_days": [2]})),
    ]
    for setting in ({"held_out_share": 0.3}, {"seed": 5}, {"num_shards": 4}, {"max_rows": 10_000}):
        others.append(key(config_of(tmp_path, training=setting)))
    build_features(tables, [D1 + timedelta(days=3)])
    assert key() == first  # of no date that counts
    for days, change in (
        (0, {"log_hash": "y"}),
        (7, {"sides_hash": "y"}),
        (2, {"num_users": 9}),
        (2, {"num_buckets": 4}),
    ):
        build_features(tables, [D1 + timedelta(days=days)], **change)
        others.append(key())
    assert len({first, *others}) == len(others) + 1


def test_rows_of_a_run_that_was_cut_off_are_used_again(
    tables: Tables, config: Config, inputs: TrainingInputs, lines: list[str]
) -> None:
    inputs = _write(
        f"{training_folder(tables, 's1')}/inputs", inputs_key(tables, config, "l1", [D1, D2]), inputs, CANDIDATES
    )
    found = training_inputs(tables, config, PLAN, space_id="s1")
    assert_same(found, inputs)
    assert lines == ["training rows: reusing those of the interrupted run"]


@pytest.mark.parametrize(("max_rows", "share"), [(20, 1.0), (1000, 1.0), (5, 0.25)])
@pytest.mark.parametrize("built", [1.0, 0.5])
def test_rows_of_other_features_are_made_again_of_a_share_of_the_users(
    tables: Tables,
    tmp_path: Path,
    inputs: TrainingInputs,
    monkeypatch: pytest.MonkeyPatch,
    max_rows: int,
    share: float,
    built: float,
    lines: list[str],
) -> None:
    if built < 1:  # for half of the users, at one date and at the end of one future
        build_features(tables, [D1], num_buckets=NUM_BUCKETS // 2, num_users=5)
        build_features(tables, [D2 + timedelta(days=2)], num_buckets=NUM_BUCKETS // 2, num_users=4)
    build_features(tables, [D2 + timedelta(days=1)], num_buckets=4, num_users=1)  # not used by this training
    config, shares = config_of(tmp_path), list[float]()
    config = config.model_copy(update={"training": config.training.model_copy(update={"max_rows": max_rows})})
    folder = Path(training_folder(tables, "s1"))
    _write(f"{folder}/inputs", "another key", inputs, {})
    (folder / "checkpoint").touch()

    def make(*_: object, num_buckets: int, **__: object) -> tuple[TrainingInputs, dict[str, np.ndarray]]:
        shares.append(num_buckets / NUM_BUCKETS)
        return inputs, {}

    monkeypatch.setattr(module, "_build", make)  # needs Spark
    found = training_inputs(tables, config, PLAN, space_id="s1")
    assert found == inputs
    share = min(share, built)
    assert shares == [share]  # of ten users at each of two as-of dates; dates of futures do not count
    assert [path.name for path in folder.iterdir()] == ["inputs"]
    assert_same(_read(f"{folder}/inputs", inputs_key(tables, config, "l1", [D1, D2])), inputs)
    sampled = [f"training rows: using {share:.2%} of the users, because of training.max_rows"] if share < 1 else []
    assert lines[:-1] == sampled
    assert lines[-1].endswith(f"{inputs.layout.width} inputs, {inputs.targets.width} targets, 2 as-of dates")


def test_the_folder_of_a_training_has_a_valid_name(tables: Tables, config: Config) -> None:
    assert training_folder(tables, "s1") == f"{config.root}/artifacts/training/s1"
    with pytest.raises(UsageError, match=r"space '\.\./x' is not a valid name"):
        training_folder(tables, "../x")

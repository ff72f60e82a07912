"""Exports in each storage type, written from files without Spark: types, manifest, metadata, and what erasure keeps."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import publish, snapshot
from tests.unit.inference.test_model import saved
from userrep.erasure.exports import _erase_from_part
from userrep.spaces.registry import add_candidate, find_space
from userrep.store.open import open_tables
from userrep.workflows.export import export_embeddings

pytestmark = pytest.mark.fast

DAY = date(2024, 5, 1)
PART = "part-00000.parquet"
SCALES = [0.25, 2.0**-7, *[0.5] * 14]
VECTORS = {f"u{k}": [k / 3, k / 10, *[0.1] * 14] for k in range(40)}  # 39 / 10 is beyond 127 of the second scale


def exported(tmp_path: Path, storage: Any) -> dict[str, Any]:
    """Export a snapshot of ``VECTORS`` to the folder ``out``; return the manifest."""
    config = config_of(tmp_path)
    tables = open_tables(config, None)
    content_hash = saved(Path(str(config.root)), is_space=True, int8_scales=SCALES).content_hash
    add_candidate(tables, space_id="s1", lineage_id="l1", trained_until=DAY, content_hash=content_hash)
    publish(tables, {snapshot(DAY, space="s1"): VECTORS})
    export_embeddings(tables, config, find_space(tables, "s1"), DAY, str(tmp_path / "out"), storage=storage)
    manifest: dict[str, Any] = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    return manifest


def test_float16_is_read_by_pandas_and_duckdb_as_the_nearest_halves(tmp_path: Path) -> None:
    manifest = exported(tmp_path, "float16")
    assert (manifest["storage"], manifest["columns"]["embedding"]) == ("float16", "array<float16>")
    assert {"num_at_limit", "scales"} & set(manifest) == set()
    field = pq.read_schema(tmp_path / "out" / PART).field("embedding")
    assert (field.type.value_type, field.metadata) == (pa.float16(), {b"userrep_storage": b"float16"})
    frames = [
        pd.read_parquet(tmp_path / "out"),
        duckdb.sql(f"SELECT * FROM '{tmp_path}/out/*.parquet' ORDER BY user_id").df(),
    ]
    for frame in frames:
        for user, found in zip(frame["user_id"], frame["embedding"], strict=True):
            assert np.array_equal(np.asarray(found, np.float32), np.array(VECTORS[user]).astype(np.float16))


def test_int8_is_decoded_with_the_scales_of_the_manifest_or_of_the_column(tmp_path: Path) -> None:
    manifest = exported(tmp_path, "int8")
    assert (manifest["storage"], manifest["columns"]["embedding"]) == ("int8", "array<int8>")
    assert manifest["scales"] == SCALES
    assert manifest["num_at_limit"] == sum(k / 10 * 128 >= 126.5 for k in range(40))
    rows = pq.read_table(tmp_path / "out" / PART)
    assert rows.schema.field("embedding").type.value_type == pa.int8()
    assert json.loads(rows.schema.field("embedding").metadata[b"userrep_scales"]) == SCALES
    decoded = dict(zip(rows["user_id"].to_pylist(), np.stack(rows["embedding"].to_numpy()) * SCALES, strict=True))
    assert decoded["u3"][:3] == pytest.approx([1.0, round(0.3 * 128) / 128, 0.0])
    errors_ND = np.abs(np.stack([decoded[user] for user in VECTORS]) - np.array(list(VECTORS.values())))
    assert (errors_ND[:, [0, 2]] <= np.array(SCALES)[[0, 2]] / 2 + 1e-6).all()


def test_float32_is_as_it_was(tmp_path: Path) -> None:
    manifest = exported(tmp_path, "float32")
    assert (manifest["storage"], manifest["columns"]["embedding"]) == ("float32", "array<float>")
    assert {"scales", "num_at_limit"} & set(manifest) == set()
    field = pq.read_schema(tmp_path / "out" / PART).field("embedding")
    assert (field.type.value_type, field.metadata) == (pa.float32(), None)


def test_erasure_keeps_the_type_and_the_scales(tmp_path: Path) -> None:
    exported(tmp_path, "int8")
    before = pq.read_table(tmp_path / "out" / PART)
    part, num_erased = _erase_from_part(
        str(tmp_path / "out"), PART, "user_id", lambda ids: np.array([user == "u7" for user in ids.to_pylist()])
    )
    after = pq.read_table(tmp_path / "out" / PART)
    assert (part.num_rows, num_erased) == (39, 1)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after["embedding"].to_pylist() == [
        vector for user, vector in zip(*(before[name].to_pylist() for name in ("user_id", "embedding")), strict=True)
        if user != "u7"
    ]  # fmt: skip

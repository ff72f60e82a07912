"""The fields of a JSON log, by a sample of its lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import types as T

from userrep.sources import json_fields
from userrep.sources.json_fields import sampled_fields, with_texts

pytestmark = pytest.mark.fast


def write(path: Path, *rows: Any) -> str:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def test_fields_of_all_sampled_lines_are_found_with_their_types(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.json", {"user": {"id": 1}, "at": "2024", "tags": [{"k": 1}]}, "torn {", '"text"', "[1]"),
        write(tmp_path / "b.json.gz", {"user": {"name": None}, "kinds": [], "mixed": {"a": 1}, "nothing": {}}),
        write(tmp_path / "c.json", {"mixed": "b", "none": None}),
    ]
    assert sampled_fields(paths).simpleString() == (
        "struct<at:string,kinds:array<string>,mixed:string,tags:array<struct<k:string>>,user:struct<id:string>>"
    )


def test_files_that_cannot_be_read_have_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"torn")
    (tmp_path / "b.json").write_bytes(b"\0")
    paths = [str(tmp_path / name) for name in ("a.json.gz", "b.json", "none.json")]
    assert sampled_fields(paths) == T.StructType()


def test_files_are_spread_evenly_over_a_long_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_fields, "_FILES", 3)
    paths = [write(tmp_path / f"{k}.json", {f"field_{k}": k}) for k in range(5)]
    assert sampled_fields(paths).names == ["field_0", "field_2", "field_4"]


def test_only_parents_of_mapped_fields_are_read_as_objects(tmp_path: Path) -> None:
    row = {"a": {"b": {"c": "x"}, "d": ["x"]}, "e": {"f": "x"}, "g": "x"}
    fields = sampled_fields([write(tmp_path / "a.json", row)])
    assert with_texts(fields, ["a.b", "g"]).simpleString() == "struct<a:struct<b:string,d:string>,e:string,g:string>"
    assert with_texts(fields, ["a.b.c", "e"])["a"].dataType.simpleString() == "struct<b:struct<c:string>,d:string>"


def test_a_parent_of_a_mapped_field_is_an_object_although_some_lines_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"user": {"id": "u"}, "x": 1}, {"user": []}, {"user": "anonymous"})
    assert sampled_fields([path], ["user.id"]).simpleString() == "struct<user:struct<id:string>,x:string>"
    assert sampled_fields([path]).simpleString() == "struct<user:string,x:string>"

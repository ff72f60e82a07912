"""Labels of items: words and pairs of words that several items share."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.explanations import item_labels
from userrep.explanations.item_labels import labels_of, read_item_labels, without_repeats
from userrep.store.file_tables import FileTables
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast

TEXTS = [*["Set of 3 RED mugs"] * 3, *["red mugs, large"] * 3, *["T-light holder"] * 5, *["Teapot"] * 4, None]


def test_words_and_pairs_that_five_items_share_are_labels() -> None:
    found = labels_of(pa.array([f"i{k:02d}" for k in range(len(TEXTS))]), pa.array(TEXTS))
    assert found.labels == ["red", "mugs", "red mugs", "t-light", "holder", "t-light holder"]
    assert found.item_ids.to_pylist() == [f"i{k:02d}" for k in range(15)]  # the last one has no text
    assert found.has_IL.toarray()[:, 0].tolist() == [1] * 6 + [0] * 9
    assert found.has_IL.toarray()[:, 3].tolist() == [0] * 6 + [1] * 5 + [0] * 4


def test_a_word_of_more_than_half_of_the_items_is_no_label() -> None:
    texts = [f"mug {word}" for word in ("red", "blue") for _ in range(6)]
    assert labels_of(pa.array([f"i{k}" for k in range(12)]), pa.array(texts)).labels == [
        "red", "mug red", "blue", "mug blue",
    ]  # fmt: skip


def test_a_word_counts_once_per_item_and_an_item_with_two_texts_once() -> None:
    texts = [*["rose rose rose"] * 4, *["tulip"] * 5]
    ids = ["a", "b", "c", "c", "d", "e", "f", "g", "h"]
    assert labels_of(pa.array(ids), pa.array(texts)).labels == ["tulip"]


def test_labels_that_share_a_word_with_an_earlier_one_are_left_out() -> None:
    assert without_repeats(["red mugs", "red", "mugs", "teapot", "tea"], 2) == ["red mugs", "teapot"]


def test_categories_are_labels_as_a_whole_next_to_words() -> None:
    ids = pa.array([f"i{k:02d}" for k in range(13)])
    texts = pa.array(["mug"] * 5 + [None] * 8)
    departments = pa.array(["Garden & Home"] * 6 + ["food"] * 6 + [None])
    found = labels_of(ids, texts, departments)
    assert found.labels == ["garden & home", "mug", "food"]
    assert found.item_ids.to_pylist() == ids[:12].to_pylist()  # the last one has neither
    assert found.has_IL.toarray()[5].tolist() == [1, 0, 0]


def test_items_are_read_without_spark_with_the_ids_of_the_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item": [float(k) for k in range(10)], "title": ["mug"] * 5 + ["cup"] * 5}), items)
    tables = FileTables(None, str(tmp_path / "root"))

    def config(*categories: str, **columns: str) -> Any:
        columns |= {"item_id": "item"}
        return config_of(tmp_path, items={"path": str(items), "columns": columns, "categories": [*categories]})

    found = read_item_labels(tables, config(text="title").items)
    assert found is not None
    assert found.item_ids.to_pylist() == [str(k) for k in range(10)]
    assert found.labels == ["mug", "cup"]
    by_category = read_item_labels(tables, config("title").items)
    assert by_category is not None
    assert by_category.labels == ["mug", "cup"]
    monkeypatch.setattr(item_labels, "MOST_ITEMS", 6)
    ids = pa.array([str(k) for k in range(10)])
    lowest = ids.take(pa.array(np.argsort(bucket_of(ids))[:6]))
    few = read_item_labels(tables, config(text="title").items)
    assert few is not None
    assert few.item_ids.to_pylist() == sorted(lowest.to_pylist())
    assert read_item_labels(tables, config().items) is None
    assert read_item_labels(tables, config_of(tmp_path).items) is None
    with pytest.raises(UsageError, match=r"items\.columns\.text: no column 'name'"):
        read_item_labels(tables, config(text="name").items)
    with pytest.raises(UsageError, match=r"items\.categories\[0\]: no column 'brand'"):
        read_item_labels(tables, config("brand").items)

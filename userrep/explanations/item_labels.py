"""Labels of items: words and pairs of adjacent words that the texts of several items share, and categories.

Shapes: I items, L labels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from userrep.config import Items
from userrep.sources.read_texts import read_texts
from userrep.store.arrow import combined
from userrep.store.tables import Tables

MOST_ITEMS = 200_000
_LEAST_ITEMS = 5  # that share a label; a label of fewer items says little about a user's taste
_MOST_SHARE = 0.5  # of the items; a label of more items distinguishes none
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|['&-](?=\w)){2,}")


@dataclass(frozen=True)
class ItemLabels:
    """The labels of items as a matrix of 0 and 1. ``item_ids`` are distinct."""

    item_ids: pa.Array
    labels: list[str]
    has_IL: csr_array


def read_item_labels(tables: Tables, items: Items | None) -> ItemLabels | None:
    """Read the labels of items from ``items.columns.text`` and ``items.categories``; None without these.

    Of more than 200,000 items, those with the lowest buckets are used, as for item vectors. The items table is read
    without Spark, up to 2 million rows of it, unless it is in a catalog.

    Raises
    ------
    UsageError
        If the items table cannot be read, or lacks a column.
    """
    if items is None or (items.columns.text is None and not items.categories):
        return None
    wanted = {"columns.item_id": items.columns.item_id}
    if items.columns.text is not None:
        wanted["columns.text"] = items.columns.text
    wanted |= {f"categories[{k}]": name for k, name in enumerate(items.categories)}
    item_ids, *texts = read_texts(tables, items, "items", wanted, most_rows=MOST_ITEMS)
    if items.columns.text is None:
        texts = [pa.nulls(len(item_ids), pa.string()), *texts]
    return labels_of(item_ids, *texts)


def labels_of(item_ids: pa.Array, texts: pa.Array, *categories: pa.Array) -> ItemLabels:
    """Return the words, pairs of adjacent words and categories that at least 5 items share, and at most half of all.

    Words have at least 3 characters, the first of which is a letter. Case does not matter. Of several rows of an item,
    the largest text and categories count.
    """
    names = [f"label_{k}" for k in range(1 + len(categories))]
    table = pa.table([item_ids, texts, *categories], names=["item", *names])
    rows = table.group_by("item").aggregate([(name, "max") for name in names]).sort_by("item")
    rows = rows.filter(pa.array(np.logical_or.reduce([rows[f"{name}_max"].is_valid() for name in names])))
    index_of: dict[str, int] = {}
    columns = [rows[f"{name}_max"].to_pylist() for name in names]
    labels_I = [
        [index_of.setdefault(label, len(index_of)) for label in _labels(*values)]
        for values in zip(*columns, strict=True)
    ]
    ends = np.cumsum([0, *map(len, labels_I)])
    flat = np.fromiter((label for labels in labels_I for label in labels), np.int64, ends[-1])
    has_IL = csr_array((np.ones(len(flat)), flat, ends), shape=(len(labels_I), len(index_of)))
    num_items_L = has_IL.sum(axis=0)
    is_label_L = (num_items_L >= _LEAST_ITEMS) & (num_items_L <= max(_MOST_SHARE * len(labels_I), _LEAST_ITEMS))
    kept, labels = np.flatnonzero(is_label_L), list(index_of)
    return ItemLabels(combined(rows["item"]), [labels[k] for k in kept], has_IL[:, kept])


def without_repeats(labels: Iterable[str], most: int) -> list[str]:
    """Return the first ``most`` labels that share no word with an earlier one."""
    chosen: list[str] = []
    for label in labels:
        if len(chosen) < most and not {*label.split()} & {word for other in chosen for word in other.split()}:
            chosen.append(label)
    return chosen


def _labels(text: str | None, *categories: str | None) -> list[str]:
    words = _WORD.findall((text or "").lower())
    whole = [category.strip().lower() for category in categories if category and category.strip()]
    return list(dict.fromkeys([*whole, *words, *map(" ".join, pairwise(words))]))

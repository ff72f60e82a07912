"""Labels of items: the words, and pairs of adjacent words, that the texts of several items share.

Shapes: I items, L labels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from userrep.config import Config
from userrep.items.item_index import read_items
from userrep.sources.columns import check_columns, configured
from userrep.sources.sample import spark_columns, take_sample
from userrep.store.arrow import combined
from userrep.store.buckets import item_bucket
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

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


def read_item_labels(tables: Tables, config: Config) -> ItemLabels | None:
    """Read the labels of items from ``items.columns.text``; None if it is not configured.

    Of more than 200,000 items, those with the lowest buckets are used, as for item vectors. The items table is read
    without Spark, up to 2 million rows of it, unless it is in a catalog.

    Raises
    ------
    UsageError
        If the items table cannot be read, or lacks a column.
    """
    if config.items is None or config.items.columns.text is None:
        return None
    columns = config.items.columns
    if config.items.format == "table":
        items = read_items(tables, config.items).where("text IS NOT NULL")
        rows = items.orderBy(item_bucket()).limit(MOST_ITEMS).toArrow()
        return labels_of(combined(rows["item_id"]), combined(rows["text"]))
    sample = take_sample(config.items, "items")
    check_columns(spark_columns(sample), configured(columns), "items")
    ids, texts = _as_ids(combined(sample.rows[columns.item_id])), combined(sample.rows[columns.text])
    lowest = pa.array(np.argsort(bucket_of(ids.fill_null("")), kind="stable")[:MOST_ITEMS])
    return labels_of(ids.take(lowest), texts.cast(pa.string()).take(lowest))


def labels_of(item_ids: pa.Array, texts: pa.Array) -> ItemLabels:
    """Return the words, and pairs of adjacent words, that at least 5 items share, but not more than half of all items.

    Words have at least 3 characters, the first of which is a letter. Case does not matter.
    """
    texts = pa.table({"item": item_ids, "text": texts}).drop_null()
    rows = texts.group_by("item").aggregate([("text", "max")]).sort_by("item")
    index_of: dict[str, int] = {}
    labels_I = [
        [index_of.setdefault(label, len(index_of)) for label in _labels(text)] for text in rows["text_max"].to_pylist()
    ]
    ends = np.cumsum([0, *map(len, labels_I)])
    flat = np.fromiter((label for labels in labels_I for label in labels), np.int64, ends[-1])
    has_IL = csr_array((np.ones(len(flat)), flat, ends), shape=(len(labels_I), len(index_of)))
    num_items_L = has_IL.sum(axis=0)
    is_label_L = (num_items_L >= _LEAST_ITEMS) & (num_items_L <= max(_MOST_SHARE * len(labels_I), _LEAST_ITEMS))
    kept, names = np.flatnonzero(is_label_L), list(index_of)
    return ItemLabels(combined(rows["item"]), [names[k] for k in kept], has_IL[:, kept])


def without_repeats(labels: Iterable[str], most: int) -> list[str]:
    """Return the first ``most`` labels that share no word with an earlier one."""
    chosen: list[str] = []
    for label in labels:
        if len(chosen) < most and not {*label.split()} & {word for other in chosen for word in other.split()}:
            chosen.append(label)
    return chosen


def _labels(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return list(dict.fromkeys([*words, *map(" ".join, pairwise(words))]))


def _as_ids(values: pa.Array) -> pa.Array:
    """Cast ids to text as for the tiles: whole numbers lose their ``.0``, and infinity and NaN are no ids."""
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    values = pc.if_else(pc.is_finite(values), values, None)
    is_whole = pc.equal(values, pc.round(values))
    whole = pc.if_else(is_whole, values, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(whole, values.cast(pa.string()))

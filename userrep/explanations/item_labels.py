"""Labels of items: words and pairs of adjacent words that the texts of several items share, and categories.

Shapes: I items, L labels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.config import Items
from userrep.sources.columns import as_text, check_columns, id_text
from userrep.sources.read import read_source
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
    wanted |= {f"categories[{k}]": name for k, name in enumerate(items.categories)}
    if items.columns.text is not None:
        wanted["columns.text"] = items.columns.text
    rows = _from_catalog(tables, items, wanted) if items.format == "table" else _from_files(items, wanted)
    item_ids, texts, *categories = (combined(column) for column in rows.columns)
    return labels_of(item_ids, texts, *categories)


def _from_files(items: Items, wanted: dict[str, str]) -> pa.Table:
    """Return ids, texts and categories of the items with the lowest buckets, in a sample of the items table."""
    sample = take_sample(items, "items")
    check_columns(spark_columns(sample), wanted, "items")
    ids = _as_ids(combined(sample.rows[items.columns.item_id]))
    text = sample.rows[items.columns.text].cast(pa.string()) if items.columns.text else pa.nulls(len(ids), pa.string())
    categories = [sample.rows[name].cast(pa.string()) for name in items.categories]
    names = ["item_id", "text", *items.categories]
    lowest = pa.array(np.argsort(bucket_of(ids.fill_null("")), kind="stable")[:MOST_ITEMS])
    return pa.table([ids, text, *categories], names=names).take(lowest)


def _from_catalog(tables: Tables, items: Items, wanted: dict[str, str]) -> pa.Table:
    """Return what ``_from_files`` does, of all items. Cost: one pass over the items table."""
    source = read_source(tables.spark, items, what="items")
    check_columns(source.schema, wanted, "items")
    text = as_text(source, items.columns.text) if items.columns.text else F.lit(None).cast("string")
    categories = [as_text(source, name) for name in items.categories]
    rows = source.select(id_text(source, items.columns.item_id).alias("item_id"), text.alias("text"), *categories)
    return rows.orderBy(item_bucket()).limit(MOST_ITEMS).toArrow()


def labels_of(item_ids: pa.Array, texts: pa.Array, *categories: pa.Array) -> ItemLabels:
    """Return the words, pairs of adjacent words and categories that at least 5 items share, and at most half of all.

    Words have at least 3 characters, the first of which is a letter. Case does not matter. Of several rows of an item,
    the largest text and categories count.
    """
    names = [f"label_{k}" for k in range(1 + len(categories))]
    table = pa.table([item_ids, texts, *categories], names=["item", *names])
    table = table.filter(pc.is_valid(table["item"]))
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


def _as_ids(values: pa.Array) -> pa.Array:
    """Cast ids to text as for the tiles: whole numbers lose their ``.0``, and infinity and NaN are no ids."""
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    values = pc.if_else(pc.is_finite(values), values, None)
    is_whole = pc.equal(values, pc.round(values))
    whole = pc.if_else(is_whole, values, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(whole, values.cast(pa.string()))

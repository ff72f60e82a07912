"""How items move a linear score: the score's weights on pooled inputs, applied to item vectors.

Shapes: I items, F inputs, L labels.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import t as student

from userrep.config import Config
from userrep.explanations.item_labels import MOST_ITEMS, ItemLabels, without_repeats
from userrep.features.layout import InputLayout, Scaler
from userrep.features.sums.item_matrix import ItemMatrix, read_matrix, vector_files
from userrep.items.vectors import slices_of
from userrep.items.versions import version_records, versions_of
from userrep.store.buckets import BucketRange, buckets_of_share
from userrep.store.tables import Tables

_ERROR = 0.05  # probability that any label is listed by chance
_MOST_LABELS = 10  # listed per direction
_CHUNK = 8_192  # items whose inputs are in memory at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelEffect:
    """How a label's items move a score, compared with all items, in standard deviations of the score over users.

    ``at_least``: the bound of ``effect`` nearer to 0.
    """

    label: str
    num_items: int
    effect: float
    at_least: float


def read_item_matrix(tables: Tables, config: Config, layout: InputLayout, as_of: date) -> ItemMatrix:
    """Read the item vectors that the features of a date use, of up to about 200,000 items with the lowest buckets."""
    versions = versions_of(tables, config, anchor=as_of)
    record = version_records(tables, versions.lineage_id).get(versions.valid_at(as_of))
    share = MOST_ITEMS / max(1, record.num_items if record else 1)
    files = vector_files(tables, versions, [as_of])[as_of]
    return read_matrix(files, layout.spec, BucketRange(0, buckets_of_share(share)))


def item_effects(layout: InputLayout, scaler: Scaler, weight_F: Floats, items: ItemMatrix) -> Floats:
    """Return the part of a linear score that comes from the pooled windows of a user with a single item.

    ``weight_F``: weights of the score on scaled inputs. Blocks of a modality without a vector of the item are absent.
    """
    spec, slices = layout.spec, slices_of(layout.spec.modalities)
    blocks = {block.name: block for block in layout.blocks}
    windows = [(blocks[pooled.column], pooled.modality) for pooled in spec.pooled if pooled.window_days is not None]
    mark = {modality: k - len(spec.modalities) for k, modality in enumerate(spec.modalities)}
    weights = np.zeros_like(weight_F)
    for block, _ in windows:
        weights[block.inputs] = weight_F[block.inputs]
    effects = []
    for start in range(0, len(items.item_ids), _CHUNK):
        vectors_IX = items.vectors_IX[start : start + _CHUNK]
        x_IF = np.zeros((len(vectors_IX), layout.width), np.float32)
        for block, modality in windows:
            x_IF[:, block.inputs] = vectors_IX[:, slices[modality]]
            x_IF[:, block.flag] = vectors_IX[:, mark[modality]]
        layout.normalize_means(x_IF)
        effects.append(scaler.apply(layout, x_IF).astype(np.float64) @ weights)
    return np.concatenate([np.zeros(0), *effects])


def label_effects(labels: ItemLabels, item_ids: pa.Array, effect_I: Floats) -> list[LabelEffect]:
    """Return the labels whose items move a score most: up to ten that raise it, then up to ten that lower it.

    ``effect_I``: effects of ``item_ids``, in standard deviations of the score. The effect of a label is the mean over
    its items, minus the mean over all items. ``at_least`` is the bound of a two-sided interval (Student's, at a level
    divided by the number of labels). A label is listed if the interval excludes 0, in the order of the bounds.
    """
    index_I = np.asarray(pc.index_in(item_ids, value_set=labels.item_ids).fill_null(-1))
    known = index_I >= 0
    has_IL: csr_array = labels.has_IL[index_I[known]]
    effect_I = effect_I[known] - (effect_I[known].mean() if known.any() else 0.0)
    num_L = np.maximum(has_IL.sum(axis=0), 1)
    degrees_L = np.maximum(num_L - 1, 1)
    mean_L = has_IL.T @ effect_I / num_L
    variance_L = np.maximum(has_IL.T @ np.square(effect_I) / num_L - np.square(mean_L), 0)
    factor_L = student.isf(_ERROR / 2 / max(1, len(mean_L)), degrees_L)
    bound_L = np.abs(mean_L) - factor_L * np.sqrt(variance_L / degrees_L)
    bound_L[num_L < 2] = 0
    listed = []
    for sign in (1, -1):
        order = [k for k in np.argsort(-bound_L) if bound_L[k] > 0 and np.sign(mean_L[k]) == sign]
        chosen = without_repeats((labels.labels[k] for k in order), _MOST_LABELS)
        listed += [
            LabelEffect(labels.labels[k], int(num_L[k]), float(mean_L[k]), float(sign * bound_L[k]))
            for k in order if labels.labels[k] in chosen
        ]  # fmt: skip
    return listed

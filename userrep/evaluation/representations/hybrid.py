"""A hybrid factorisation in the manner of LightFM (Kula 2015): users and items are sums of what is known of them.

LightFM itself is no longer built for current Pythons. Shapes: U users, V items, A numbers of a user's attributes, C of
an item's content, D factors, N rows, B users of a batch, P positives of a batch, K candidates for a negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyspark.sql import functions as F
from scipy.sparse import csr_array
from torch import Tensor, nn

from userrep.arrow import combined
from userrep.evaluation.items import content_modality, read_version
from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.bags import Bags, bags_of, held_out, trained
from userrep.evaluation.rows import only_of, places
from userrep.evaluation.sample import Sample
from userrep.features.sides import profiles_of, read_users
from userrep.items.versions import made_versions

_FACTORS = 80
_LEARNING_RATE = 3e-3
_POSITIVES, _CANDIDATES = 2048, 20  # of a batch, and of a positive


class HybridNet(nn.Module):
    """Score = user . item + the item's bias.

    An item is a vector of its own and a projection of its content. A user is what the items of its history say (again
    own vectors and content), over the square root of their number, and a projection of its attributes.
    """

    content_VC: Tensor

    def __init__(self, content_VC: Floats32, num_attributes: int) -> None:
        super().__init__()
        num_items, num_content = content_VC.shape
        self.register_buffer("content_VC", torch.from_numpy(content_VC))
        self.item, self.said = nn.Embedding(num_items, _FACTORS), nn.Embedding(num_items, _FACTORS)
        self.item_content = nn.Linear(num_content, _FACTORS, bias=False)
        self.said_content = nn.Linear(num_content, _FACTORS, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.attributes = nn.Linear(num_attributes, _FACTORS)
        for table in (self.item, self.said, self.item_content, self.said_content):
            nn.init.normal_(table.weight, std=1 / _FACTORS)

    def items(self) -> Tensor:
        """Return all items' vectors, V x D."""
        vectors_VD: Tensor = self.item.weight + self.item_content(self.content_VC)
        return vectors_VD

    def says(self) -> Tensor:
        """Return what each item says of a user who met it, V x D."""
        said_VD: Tensor = self.said.weight + self.said_content(self.content_VC)
        return said_VD

    def users(self, bags: Bags, attributes_BA: Tensor) -> Tensor:
        """Return the users' vectors, B x D."""
        users_BD: Tensor = _sums(bags, self.says()) * _share(bags.length_B) + self.attributes(attributes_BA)
        return users_BD

    @torch.inference_mode()
    def scores(self, shown_BV: csr_array, attributes_BA: Tensor) -> NDArray[np.float32]:
        """Score all items for one batch of bags."""
        bags = next(bags_of(shown_BV, np.arange(shown_BV.shape[0])))
        score_BV: NDArray[np.float32] = (self.users(bags, attributes_BA) @ self.items().T + self.bias).numpy()
        return score_BV

    def warp(self, bags: Bags, attributes_BA: Tensor) -> Tensor:
        """Return the loss of WARP (Weston, Bengio, Usunier 2011) on some positives, left out of their user's history.

        Of the candidates, drawn alike from all items, the first that comes within the margin is the negative. The
        sooner one does, the worse is the positive's rank, by estimate, and the more the pair weighs.
        """
        at_P = torch.randperm(len(bags.item_E))[:_POSITIVES]
        row_P, item_P = bags.row_E[at_P], bags.item_E[at_P]
        says_VD, items_VD = self.says(), self.items()
        rest_PD = _sums(bags, says_VD)[row_P] - says_VD[item_P]
        users_PD = rest_PD * _share(bags.length_B[row_P] - 1) + self.attributes(attributes_BA)[row_P]
        candidate_PK = torch.randint(len(items_VD), (len(at_P), _CANDIDATES))
        score_P = (users_PD * items_VD[item_P]).sum(dim=1) + self.bias[item_P]
        score_PK = torch.einsum("pd,pkd->pk", users_PD, items_VD[candidate_PK]) + self.bias[candidate_PK]
        gap_PK = 1 - score_P[:, None] + score_PK
        is_taken_BV = torch.zeros(len(bags.length_B), len(items_VD), dtype=torch.bool)
        is_taken_BV[bags.row_E, bags.item_E] = True
        violates_PK = (gap_PK.detach() > 0) & ~is_taken_BV[row_P[:, None], candidate_PK]
        first_P = violates_PK.int().argmax(dim=1)
        rank_P = torch.div(len(items_VD) - 1, first_P + 1, rounding_mode="floor").clamp(min=1)
        weight_P = violates_PK.any(dim=1) * torch.log1p(rank_P)
        loss: Tensor = (weight_P * gap_PK.gather(1, first_P[:, None])[:, 0]).mean()
        return loss


@dataclass
class Hybrid:
    """The user's vector by the items met before the row's date and by its attributes; then 1 where it has met any.

    Trained with WARP on ``context.sample``; content are the vectors of the first content modality that were valid at
    ``plan.until``. The number of steps is chosen by nDCG@100 of hidden items of held-out users. Cost: 2,000 steps of
    2,048 positives at most, each with 20 x D multiplications of candidates and V x C x D of content.
    """

    name: str = "lightfm_like"
    max_steps: int = 2000
    ndcg: float = field(default=0.0, init=False)
    _net: HybridNet | None = field(default=None, init=False)

    def fit(self, context: Context) -> None:
        """Read content and attributes; train."""
        sample = context.sample
        self.fit_counts(
            sample.num_events_UV, _content(context, sample), _attributes_of_users(context, sample), seed=context.seed
        )

    def fit_counts(self, counts_UV: csr_array, content_VC: Floats32, attributes_UA: Floats32, *, seed: int) -> None:
        """Train on these counts."""
        training, apart = held_out(counts_UV, np.random.default_rng(seed))
        attributes = torch.from_numpy(attributes_UA)
        self._net, self.ndcg = trained(
            lambda: HybridNet(content_VC, attributes_UA.shape[1]),
            lambda net, bags, _: net.warp(bags, attributes[bags.rows_B]),
            lambda net: apart.ndcg(lambda shown_BV, users_B: net.scores(shown_BV, attributes[users_B])),
            counts_UV, training, max_steps=self.max_steps, learning_rate=_LEARNING_RATE, seed=seed,
        )  # fmt: skip

    def matrix(self, context: Context) -> Floats32:
        """Describe each row by its history and its attributes."""
        return self.described(context.history_of_sample(), _attributes_of_rows(context))

    @torch.inference_mode()
    def described(self, history_NV: csr_array, attributes_NA: Floats32) -> Floats32:
        """Return the users' vectors, and where there is a history."""
        assert self._net is not None
        attributes = torch.from_numpy(attributes_NA)
        batches = bags_of(history_NV, np.arange(history_NV.shape[0]))
        x_ND = np.concatenate([self._net.users(bags, attributes[bags.rows_B]).numpy() for bags in batches])
        return np.hstack([x_ND, (np.diff(history_NV.indptr) > 0).astype(np.float32)[:, None]])


def _sums(bags: Bags, vectors_VD: Tensor) -> Tensor:
    return nn.functional.embedding_bag(bags.item_E, vectors_VD, bags.start_B, mode="sum")


def _share(count: Tensor) -> Tensor:
    return torch.rsqrt(count.clamp(min=1).float())[:, None]


def one_hot(values: Mapping[str, pa.StringArray], vocabulary: Mapping[str, list[str]]) -> Floats32:
    """Lay attributes out side by side, a column for each value of the vocabulary; others and nulls are zeros."""
    parts = [np.zeros((len(column), len(vocabulary[name])), np.float32) for name, column in values.items()]
    for part_NA, (name, column) in zip(parts, values.items(), strict=True):
        at_N = places(column, pa.array(vocabulary[name], pa.string()))
        known = np.flatnonzero(at_N >= 0)
        part_NA[known, at_N[known]] = 1
    return np.hstack(parts)


def _attributes_of_rows(context: Context) -> Floats32:
    features = context.rows.features
    names = [f"attribute_{name}" for name in context.layout.spec.attributes]
    values = {name: features.column(name).cast(pa.string()) for name in names}
    return one_hot(values, context.layout.vocabulary) if values else np.zeros((len(context.rows), 0), np.float32)


def _attributes_of_users(context: Context, sample: Sample) -> Floats32:
    """Read the sampled users' attributes from the table of users."""
    names = context.layout.spec.attributes
    attributes_UA = np.zeros(
        (len(sample.user_ids), sum(len(context.layout.vocabulary[f"attribute_{n}"]) for n in names))
    )
    if context.config.users is None or not names:
        return attributes_UA.astype(np.float32)
    columns = [F.col("attributes")[k].alias(f"attribute_{name}") for k, name in enumerate(names)]
    users = profiles_of(read_users(context.tables.spark, context.config.users), None).select("user_id", *columns)
    found = only_of(users, "user_id", sample.user_ids).toArrow()
    values = {name: combined(found.column(name)).cast(pa.string()) for name in found.column_names[1:]}
    attributes_UA[places(combined(found.column("user_id")).cast(pa.string()), sample.user_ids)] = one_hot(
        values, context.layout.vocabulary
    )
    return attributes_UA.astype(np.float32)


def _content(context: Context, sample: Sample) -> Floats32:
    """Read the vectors of the sample's items of the version that was valid at ``until``: V x C."""
    lineage_id, modality = context.artifact.manifest.lineage_id, content_modality(context.config)
    version = max(day for day in made_versions(context.tables, lineage_id) if day <= context.plan.until)
    dims = {modality: context.config.item_vectors[modality].dim}
    return read_version(context.tables, lineage_id, version, sample.item_ids, dims)[0]

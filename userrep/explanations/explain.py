"""The answers of ``userrep explain``: what a space's vectors contain, and what drives a linear model on them."""

from dataclasses import dataclass
from datetime import date

from userrep.config import Config
from userrep.explanations.item_effects import LabelEffect, item_effects, label_effects, read_item_matrix
from userrep.explanations.item_labels import read_item_labels
from userrep.explanations.readings import Reading, attribute, read_blocks
from userrep.explanations.sampled_users import MOST_USERS, SampledUsers, sample_users
from userrep.model.artifact import load_artifact
from userrep.spaces.consumer_model import ConsumerModel
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import Snapshot
from userrep.store.tables import Tables


@dataclass(frozen=True)
class Explanation:
    """What was explained on ``num_users`` sampled users of a snapshot, of which ``num_held_out`` are held out."""

    space_id: str
    snapshot_id: str
    as_of: date
    num_users: int
    num_held_out: int


@dataclass(frozen=True)
class SpaceExplanation(Explanation):
    """Which blocks of inputs can be read from a space's vectors of held-out users, in the order of the inputs."""

    blocks: list[Reading]


@dataclass(frozen=True)
class ModelExplanation(Explanation):
    """What drives a model's score: shares of its variance by block, largest first, and labels of items.

    ``mean`` and ``deviation`` of the score are over the sampled users. ``labels``: those that raise the score, then
    those that lower it; None without texts of items.
    """

    mean: float
    deviation: float
    shares: dict[str, float]
    unexplained: float
    labels: list[LabelEffect] | None


def explain_space(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, *, most_users: int = MOST_USERS
) -> SpaceExplanation:  # fmt: skip
    """Read the blocks of inputs linearly from the vectors of a sample of users.

    Cost: those of ``sample_users`` and ``read_blocks``; seconds for 20,000 users. Raises UsageError as they do.
    """
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    users = sample_users(tables, config, space, snapshot, most_users=most_users)
    blocks = read_blocks(artifact.layout, artifact.inputs(users.features), users.z_ND, users.is_held_out_N)
    return SpaceExplanation(*_explained(snapshot, users), blocks)


def explain_model(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, model: ConsumerModel
) -> ModelExplanation:
    """Divide the variance of a model's score among the blocks of inputs, and find the items that raise it.

    Cost: those of ``sample_users`` and ``attribute``, and the vectors and texts of up to 200,000 items.

    Raises
    ------
    UsageError
        If the model is of another space, or has another number of weights than a vector.
    """
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    model.check_fits(space.space_id, artifact.manifest.model.latent_dim)
    users = sample_users(tables, config, space, snapshot)
    score_N = model.scores(users.z_ND)
    weight_F, shares = attribute(artifact.layout, artifact.inputs(users.features), score_N, users.is_held_out_N)
    texts, effects = read_item_labels(tables, config.items), None
    if texts is not None:
        items = read_item_matrix(tables, config, artifact.layout, snapshot.as_of)
        effect_I = item_effects(artifact.layout, artifact.scaler, weight_F, items)
        effects = label_effects(texts, items.item_ids, effect_I / max(float(score_N.std()), 1e-12))
    return ModelExplanation(
        *_explained(snapshot, users),
        mean=float(score_N.mean()),
        deviation=float(score_N.std()),
        shares=dict(sorted(shares.items(), key=lambda share: -share[1])),
        unexplained=1 - sum(shares.values()),
        labels=effects,
    )


def _explained(snapshot: Snapshot, users: SampledUsers) -> tuple[str, str, date, int, int]:
    """Return the fields of an ``Explanation``."""
    num_held_out = int(users.is_held_out_N.sum())
    return snapshot.space_id, snapshot.snapshot_id, snapshot.as_of, len(users), num_held_out

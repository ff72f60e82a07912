"""Names and shapes of a model's weights, without importing torch, for checks in processes that run no network."""

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout

_MIN_LATENT_PER_PROPENSITY = 4  # a model with fewer latent dimensions per propensity has no propensities
_LATENT_PER_TASTE = 5  # a fifth of the latent dimensions are tastes
FITTED_OUTSIDE = ("propensity", "taste")  # prefixes of the weights that the network's training does not change
NUM_KNOTS = 3  # points on each count where the slope of a propensity may change
_WITHOUT_BIAS = ("encoder_latent", "item_query", "item_worth")


def propensities_of(targets: TargetLayout, model: config.Model) -> list[str]:
    """Return the names of the propensities, return and volume of each future; empty if the latent is too small."""
    names = [f"{kind}_{days}d" for days in targets.futures for kind in ("return", "volume")]
    return names if model.latent_dim >= _MIN_LATENT_PER_PROPENSITY * len(names) else []


def num_tastes(layout: InputLayout, targets: TargetLayout, model: config.Model) -> int:
    """Return K, the number of tastes; 0 without item texts, or if there are no propensities."""
    if not propensities_of(targets, model):
        return 0
    return min(model.latent_dim // _LATENT_PER_TASTE, sum(block.width for block in layout.means))


def weight_shapes(layout: InputLayout, model: config.Model, targets: TargetLayout) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight and bias by name, as in the state dict of ``Autoencoder``."""
    tastes, num_propensities = num_tastes(layout, targets, model), len(propensities_of(targets, model))
    learned, hidden, decoder = model.latent_dim - tastes - num_propensities, model.hidden_dim, model.decoder_dim
    layers = {"encoder_linear": (learned, layout.width)}
    if hidden:
        layers |= {"encoder_hidden": (hidden, layout.width), "encoder_latent": (learned, hidden)}
    if decoder:
        layers["decoder_hidden"] = (decoder, learned)
    layers["decoder_output"] = (layout.width, decoder or learned)
    if targets.blocks and model.next_items_weight:
        layers |= {"item_query": (targets.item_width, learned), "item_worth": (1, targets.item_width)}
    if targets.blocks and model.next_days_weight:
        layers["next_days"] = (len(targets.numbers), learned)
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in layers.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items() if name not in _WITHOUT_BIAS}
    if num_propensities:
        shapes |= {
            "propensity_PF": (num_propensities, layout.width),
            "propensity_PG": (num_propensities, NUM_KNOTS * layout.num_counts),
            "propensity_P": (num_propensities,),
            "propensity_knot_KS": (NUM_KNOTS, layout.num_counts),
        }
    if tastes:
        shapes |= {"taste_KF": (tastes, layout.width), "taste_K": (tastes,)}
    return shapes

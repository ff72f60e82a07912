"""Which weights a model has. Needs no torch: an artifact is checked where no network is run."""

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout

_LEAST_LEARNED = 4  # dimensions for each propensity: with fewer there is none


def propensities_of(targets: TargetLayout, model: config.Model) -> list[str]:
    """Name the propensities, one for each future's return and one for its volume; none where the latent is small."""
    names = [f"{what}_{days}d" for days in targets.futures for what in ("return", "volume")]
    return names if model.latent_dim >= _LEAST_LEARNED * len(names) else []


def weight_shapes(layout: InputLayout, model: config.Model, targets: TargetLayout) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights by name."""
    num_propensities = len(propensities_of(targets, model))
    learned, hidden, decoder = model.latent_dim - num_propensities, model.hidden_dim, model.decoder_dim
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
        shapes |= {"propensity_PF": (num_propensities, layout.width), "propensity_P": (num_propensities,)}
    return shapes


_WITHOUT_BIAS = ("encoder_latent", "item_query", "item_worth")

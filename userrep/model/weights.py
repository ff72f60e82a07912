"""Which weights an autoencoder has. Needs no torch: an artifact is checked where no network is run."""

from userrep import config
from userrep.features.layout import InputLayout
from userrep.model.carried import carried_tastes


def weight_shapes(layout: InputLayout, model: config.Model, num_targets: int = 0) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an autoencoder's weights by name."""
    layers = {
        "encoder_hidden": (model.hidden_dim, layout.width),
        "encoder_latent": (model.latent_dim, model.hidden_dim),
        "encoder_skip": (model.latent_dim, layout.width),
        "decoder_hidden": (model.decoder_dim, model.latent_dim),
        "decoder_output": (layout.width, model.decoder_dim),
    }
    if num_targets:
        layers |= {
            "future_hidden": (model.decoder_dim, model.latent_dim),
            "future_output": (num_targets, model.decoder_dim),
        }
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in layers.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items() if name != "encoder_skip"}
    return shapes | {"whitening_EE": (carried_tastes(layout, model).dim,) * 2}

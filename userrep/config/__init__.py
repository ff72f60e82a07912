"""The configuration: one YAML file that is checked as a whole; unknown keys are errors, and all faults are listed.

Relative paths in the file are relative to the file's folder. Relative paths in ``--set`` are relative to the working
directory. ``~`` and ``${NAME}`` in paths are expanded. Any URI that both Spark and pyarrow can read also works. `make
reference` publishes the docstring below each field in docs/reference/configuration.md.
"""

from userrep.config.config import Config
from userrep.config.items import AlsVectors, Items, TextVectors
from userrep.config.loading import load_config, parse_config
from userrep.config.log import Events, EventSource, Partition, Source
from userrep.config.operations import Drift, DriftLimits, Evaluation, Gates, Snapshots, Storage
from userrep.config.stream import Kafka, Stream, StreamSource
from userrep.config.training import Model, Training
from userrep.config.users import Onboarding, Users
from userrep.config.values import Name, Section

__all__ = [
    "AlsVectors", "Config", "Drift", "DriftLimits", "Evaluation", "EventSource", "Events", "Gates", "Items", "Kafka",
    "Model", "Name", "Onboarding", "Partition", "Section", "Snapshots", "Source", "Storage", "Stream",
    "StreamSource", "TextVectors", "Training", "Users", "load_config", "parse_config",
]  # fmt: skip

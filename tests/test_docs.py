"""What the documentation says of the code."""

import re
from datetime import timedelta
from pathlib import Path

from pydantic_core import PydanticUndefined

from userrep.config import AsOfs, Training

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_on_training_lists_every_setting_with_its_default() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8").split("## Settings")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^|`]+?)`? \|", page, flags=re.MULTILINE))
    fields = {name: field.default for name, field in Training.model_fields.items() if name != "as_ofs"}
    fields |= {f"as_ofs.{name}": field.default for name, field in AsOfs.model_fields.items()}
    assert PydanticUndefined not in fields.values()
    assert listed == {name: _written(default) for name, default in fields.items()}


def _written(default: object) -> str:
    """Write a default as a configuration file does."""
    if isinstance(default, timedelta):
        return f"{default.total_seconds() / 60:.0f}m"
    return "none" if default is None else str(default)

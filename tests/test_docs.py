"""What the documentation says of the code."""

import re
from datetime import date, timedelta
from pathlib import Path

from pydantic_core import PydanticUndefined

from userrep import cli_consumers, cli_spaces
from userrep.config import AsOfs, Training
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.tables import Tables

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_on_training_lists_every_setting_with_its_default() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8").split("## Settings")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^|`]+?)`? \|", page, flags=re.MULTILINE))
    fields = {name: field.default for name, field in Training.model_fields.items() if name != "as_ofs"}
    fields |= {f"as_ofs.{name}": field.default for name, field in AsOfs.model_fields.items()}
    assert PydanticUndefined not in fields.values()
    assert listed == {name: _written(default) for name, default in fields.items()}


def test_the_page_on_spaces_names_commands_that_there_are_and_its_example_runs(tmp_path: Path) -> None:
    page = (DOCS / "spaces.md").read_text(encoding="utf-8")
    known = {"spaces": cli_spaces.app, "consumers": cli_consumers.app}
    named = set(re.findall(r"userrep (spaces|consumers) ([a-z]+)", page))
    for group, app in known.items():
        there = {command.name for command in app.registered_commands}
        assert {command for of, command in named if of == group} <= there
    tables = Tables(None, root=str(tmp_path))
    for space_id in ("s001-4f09a1", "s002-4f09a1"):
        add_candidate(tables, space_id=space_id, lineage_id="l", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s001-4f09a1"))
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, object] = {"tables": tables}
    exec(example, names)
    assert names["space"] == find_space(tables, "s001-4f09a1")
    promote(tables, find_space(tables, "s002-4f09a1"))


def _written(default: object) -> str:
    """Write a default as a configuration file does."""
    if isinstance(default, timedelta):
        return f"{default.total_seconds() / 60:.0f}m"
    return "none" if default is None else str(default)

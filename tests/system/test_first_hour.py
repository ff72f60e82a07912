"""The tutorial of the first hour: its commands and programs run in order, and print what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "your-first-hour.md").read_text(encoding="utf-8")
STEPS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:-1]
# The environment of the tests is the one that the page sets up.
REPLACED = {"make setup": f"make -C {ROOT} --dry-run setup", "source .venv/bin/activate": "true"}


def commands_of(step: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", step, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for line in re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)]


def test_every_command_of_the_page_works_and_prints_what_it_shows(tmp_path: Path) -> None:
    for name, program in re.findall(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(program, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TZ": "UTC"}
    environment.pop("USERREP_CONFIG", None)
    for step in STEPS:
        printed = ""
        for command in commands_of(step):
            ran = subprocess.run(
                ["bash", "-c", REPLACED.get(command, command)],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
            printed += ran.stdout
        assert missing(step, printed) == [], printed
    assert len(STEPS) == 6


def missing(step: str, printed: str) -> list[str]:
    """Return the lines that a step shows and its commands have not printed, whatever stands for `...`."""
    shown = "".join(re.findall(r"^```text\n(.*?)^```", step, flags=re.MULTILINE | re.DOTALL)).splitlines()
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    patterns = [".*".join(map(re.escape, " ".join(line.split()).split("..."))) for line in shown]
    return [pattern for pattern in patterns if not any(re.fullmatch(pattern, line) for line in lines)]

"""The tutorials: their commands and programs run in order, and print what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
# The environment of the tests is the one that a page sets up.
# The tests run in an environment that has all of this; test_wheel.py installs the package with these extras.
INSTALL = "pip install '.[all]' --constraint deploy/constraints/spark-4.2.txt"
REPLACED = {"python -m venv .venv": "true", "source .venv/bin/activate": "true", INSTALL: "true"}
NAMED_FILE = re.compile(r"`([\w.]+)`[^`]*:\n\n```(?:python|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```(\w+)\n((?s:.*?))^```|((?:^    \S.*\n| {8}.*\n)+)", re.MULTILINE)


def blocks_of(step: str) -> list[tuple[list[str], list[str]]]:
    """Return the commands of each block of a step, and the lines that the page shows below it."""
    blocks: list[tuple[list[str], list[str]]] = []
    for language, text, commands in CODE.findall(step):
        if commands:
            joined = re.sub(r"\\\n\s*", "", commands)
            blocks.append(([line.split("  #")[0].strip() for line in joined.splitlines()], []))
        elif language == "text":
            blocks[-1][1].extend(text.splitlines())
    return blocks


@pytest.mark.parametrize(("page", "num_steps"), [("your-first-hour.md", 6), ("full-tour.md", 8)])
def test_every_command_of_the_page_works_and_prints_what_it_shows(tmp_path: Path, page: str, num_steps: int) -> None:
    text = (ROOT / "docs" / "tutorials" / page).read_text(encoding="utf-8")
    for name, content in NAMED_FILE.findall(text):
        (tmp_path / name).write_text(content, encoding="utf-8")
    for folder in ("jobs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TZ": "UTC"}
    environment.pop("USERREP_CONFIG", None)
    steps = re.split(r"^## ", text, flags=re.MULTILINE)[1:-1]
    assert len(steps) == num_steps
    for commands, shown in (block for step in steps for block in blocks_of(step)):
        printed, is_refused = "", any(line.startswith("userrep: ") for line in shown)
        for command in commands:
            ran = subprocess.run(
                ["bash", "-c", REPLACED.get(command, command)],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ran.returncode == (2 if is_refused else 0), f"{command}\n{ran.stdout}\n{ran.stderr}"
            printed += ran.stderr if is_refused else ran.stdout
        assert missing(shown, printed) == [], printed


def missing(shown: list[str], printed: str) -> list[str]:
    """Return the shown lines that were not printed, whatever stands for `...`."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    patterns = [".*".join(map(re.escape, " ".join(line.split()).split("..."))) for line in shown]
    return [pattern for pattern in patterns if not any(re.fullmatch(pattern, line) for line in lines)]

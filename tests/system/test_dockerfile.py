"""The Dockerfile, which no test can build: a linter has no complaint, and all that it names is there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    (step.split()[0], step.split(maxsplit=1)[1])
    for step in re.sub(r"\\\n\s*", "", TEXT).splitlines()
    if step and not step.startswith("#")
]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is missing: `make setup` installs it")
def test_the_linter_has_no_complaint() -> None:
    ran = subprocess.run([str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_what_is_copied_is_there_and_in_the_context_which_has_nothing_else() -> None:
    copied = [word for do, what in STEPS if do == "COPY" and "--from" not in what for word in shlex.split(what)[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == set(copied)


def test_the_image_is_made_by_the_makefile_s_own_steps_with_what_these_ask_for() -> None:
    makefile = (ROOT / "Makefile").read_text()
    runs = " ".join(what for do, what in STEPS if do == "RUN")
    targets = re.findall(r"make ([a-z-]+)", runs)
    assert targets == ["install"]
    assert re.search(r"^install: .*## ", makefile, flags=re.MULTILINE)
    asked = re.findall(r"Debian: apt-get install ([a-z0-9.-]+)", (ROOT / "deploy" / "preflight.sh").read_text())
    assert {name for name in asked if name not in runs} == set()
    assert ("ARG", 'HOROVOD_GPU_OPERATIONS=""') in STEPS
    assert "HOROVOD_GPU_OPERATIONS" in makefile


def test_the_image_runs_userrep_as_a_user_without_rights() -> None:
    last = {do: what for do, what in STEPS if do in ("USER", "ENTRYPOINT", "CMD")}
    assert last == {"USER": "10001", "ENTRYPOINT": '["userrep"]', "CMD": '["--help"]'}
    assert "useradd --create-home --uid 10001" in TEXT

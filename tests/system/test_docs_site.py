"""The documentation site, built as `make docs` builds it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPHINX = Path(sys.prefix) / "docs" / "bin" / "sphinx-build"  # has its own environment
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not SPHINX.exists(), reason="Sphinx is missing: `make test-all` installs it"),
]


def test_the_site_builds_without_a_warning_and_its_navigation_has_every_page(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        str(SPHINX),
        "-b",
        "html",
        "-c",
        "deploy/docs",
        "-d",
        str(tmp_path / "trees"),
        "-W",
        "--keep-going",
        "-q",
    ]
    built = subprocess.run([*command, ".", str(site)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    start = (site / "docs" / "README.html").read_text(encoding="utf-8")
    groups = re.findall(r'class="caption"[^>]*><span class="caption-text">([^<]+)<', start)
    assert groups == re.findall(r"^## (.+)$", (ROOT / "docs" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {page.relative_to(ROOT).with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert [page for page in sorted(pages) if not (site / page).exists()] == []
    assert 'url=docs/README.html"' in (site / "index.html").read_text(encoding="utf-8")

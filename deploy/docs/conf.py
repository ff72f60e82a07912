"""Settings of Sphinx for the documentation site: `make docs`.

The source folder is the root of the repository, so that links from a page to code or to README work here as they do
in the repository. The navigation is taken from docs/README.md: each second-level heading is a group, and the pages
linked below it are its entries, in that order. A page that docs/README.md does not link fails the build.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
INDEX = "docs/README"

project = "userrep"
author = "The userrep developers"
version = release = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
html_title = f"userrep {version}"

root_doc = INDEX
include_patterns = ["*.md", "docs/**", "tests/README.md"]
extensions = ["myst_nb", "sphinx_copybutton"]
nb_execution_mode = "off"  # `make notebooks` runs them
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = "$ "


def _with_navigation(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Append one hidden table of contents per second-level heading to docs/README.md."""
    if docname != INDEX:
        return
    for section in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        caption, text = section.split("\n", 1)
        links = re.findall(r"\]\(([^)#]+\.(?:md|ipynb))[)#]", text)
        pages = [link.removeprefix("../") if link.startswith("../") else f"docs/{link}" for link in links]
        entries = "\n".join(f"/{page}" for page in dict.fromkeys(pages))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n{entries}\n```\n"


def _with_redirect(app: Sphinx, exception: Exception | None) -> None:
    """Write an index.html that opens the start page."""
    if exception is None:
        page = f'<!doctype html><title>userrep</title><meta http-equiv="refresh" content="0; url={INDEX}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _with_navigation)
    app.connect("build-finished", _with_redirect)

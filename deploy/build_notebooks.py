"""Build of the notebooks with outputs: sources in Databricks' format are run one after another and become .ipynb files.

    make notebooks

writes docs/tutorials/notebooks. Parts of the outputs that differ from run to run are removed: stderr and execution
times.
"""

import base64
import io
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]*.py"))  # not helpers.py, which they import
KEPT = REPOSITORY / "docs" / "tutorials" / "notebooks"
ROOT = "build/notebooks"  # the notebooks' default

_FIRST_LINE = "# Databricks notebook source\n"
_NUM_COLORS = 64  # of a picture


def as_notebook(source: str) -> NotebookNode:
    """Convert a notebook in Databricks' source format. Raises ValueError if it is not one."""
    if not source.startswith(_FIRST_LINE):
        raise ValueError(f"not a notebook: its first line is not {_FIRST_LINE.strip()!r}.")
    cells = []
    texts = [text.strip("\n") for text in source.removeprefix(_FIRST_LINE).split("# COMMAND ----------\n")]
    for k, text in enumerate(texts):
        magic = re.sub(r"^# MAGIC ?", "", text, flags=re.MULTILINE) if text.startswith("# MAGIC") else None
        if magic is None:
            cell = v4.new_code_cell(text)
        elif magic.startswith("%md\n"):
            cell = v4.new_markdown_cell(magic.removeprefix("%md\n"))
        else:
            cell = v4.new_code_cell(magic)
        cell["id"] = f"cell-{k}"
        cells.append(cell)
    about = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": about, "language_info": {"name": "python"}})


def run(source: Path, *, cwd: Path, settings: Mapping[str, str]) -> NotebookNode:
    """Execute a notebook in a new kernel. Raises CellExecutionError, with the traceback, if a cell fails."""
    notebook = as_notebook(source.read_text(encoding="utf-8"))
    variables = {f"USERREP_{name.upper()}": value for name, value in settings.items()}
    path = os.pathsep.join([str(REPOSITORY), str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(cwd)}})
    client.execute(env={**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(cwd / "build" / "ipython"), **variables})
    return notebook


def without_noise(notebook: NotebookNode) -> NotebookNode:
    """Remove parts that differ from run to run, and reduce the colors of pictures."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if picture := output.get("data", {}).get("image/png"):
                output.data["image/png"] = _smaller(picture)
    return notebook


def _smaller(picture: str) -> str:
    png = io.BytesIO()
    rgb = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    rgb.quantize(_NUM_COLORS, Image.Quantize.FASTOCTREE).save(png, "png", optimize=True)  # keeps rare colors apart
    return base64.b64encode(png.getvalue()).decode()


def main() -> None:
    """Run all notebooks on a new root, and write them to docs/tutorials/notebooks."""
    shutil.rmtree(REPOSITORY / ROOT, ignore_errors=True)
    KEPT.mkdir(exist_ok=True)
    for source in SOURCES:
        print(source.name, flush=True)
        notebook = without_noise(run(source, cwd=REPOSITORY, settings={}))
        text = nbformat.writes(notebook)
        if str(REPOSITORY) in text or str(Path.home()) in text:
            raise SystemExit(f"{source.name}: an output contains a path of this machine.")
        (KEPT / f"{source.stem}.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

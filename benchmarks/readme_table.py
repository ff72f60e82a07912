"""The table of quality in README.md, written from the records in ``docs/results``.

make results
"""

import json
import re
from pathlib import Path

from benchmarks.results import RECORDS, markdown_table
from userrep.evaluation.tasks.task import is_akin_to_training
from userrep.model.self_check import marked

README = Path("README.md")
LOGS = {"online_retail_ii": "Online Retail II", "complete_journey": "The Complete Journey"}
TASKS = {
    "next_item_7d": "next items",
    "next_item_7d_new": "new items",
    "return_30d": "return",
    "volume_30d": "volume",
    "next_categories_30d": "categories",
    "neighbours": "neighbors",
}
REPRESENTATIONS = {
    "embedding": "embedding",
    "rfm_history": "RFM with history",
    "als_refitted": "ALS, refitted at each date",
    "pooled_longest": "mean item vectors",
    "raw": "raw inputs",
    "pca": "PCA of the raw inputs",
    "principal": "the embedding at the start of training",
}
_BLOCK = re.compile(r"(?<=<!-- quality: written by make results -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def quality_table(folder: Path = RECORDS) -> str:
    """Return the table: per measured log, a value for each representation and task; the best of a task is bold."""
    rows: list[list[str]] = []
    for log, title in LOGS.items():
        path = folder / f"quality_{log}_later.json"
        if not path.exists():
            continue
        values = json.loads(path.read_text(encoding="utf-8"))["line"]["values"]
        names = [title, *[""] * (len(REPRESENTATIONS) - 1)]
        for shown_log, (name, shown) in zip(names, REPRESENTATIONS.items(), strict=True):
            rows.append([shown_log, shown, *(_cell(values.get(task, {}), name) for task in TASKS)])
    head = [marked(shown, is_akin_to_training(task)) for task, shown in TASKS.items()]
    return markdown_table(["log", "input", *head], rows)


def with_table(readme: str, folder: Path = RECORDS) -> str:
    """Return the text of README.md with the table of today's records. Raises ValueError if it has no place for it."""
    text, num_places = _BLOCK.subn(lambda _: quality_table(folder), readme)
    if num_places != 1:
        raise ValueError("README.md needs one pair of lines with the markers of the table of quality")
    return text


def _cell(values: dict[str, float], name: str) -> str:
    if name not in values:
        return "-"
    text = f"{values[name]:.3f}"
    is_best = text == f"{max(values[other] for other in REPRESENTATIONS if other in values):.3f}"
    return f"**{text}**" if is_best else text


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")

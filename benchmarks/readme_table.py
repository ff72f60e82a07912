"""The table of quality in README.md, written from the records in ``docs/results``.

make results
"""

import json
import re
from pathlib import Path

from benchmarks.results import RECORDS, markdown_table

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
    "raw": "raw inputs",
    "pca": "PCA of them",
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
        rows.append([f"**{title}**", *[""] * len(TASKS)])
        rows += [[shown, *(_cell(values[task], name) for task in TASKS)] for name, shown in REPRESENTATIONS.items()]
    return markdown_table(["", *TASKS.values()], rows)


def with_table(readme: str, folder: Path = RECORDS) -> str:
    """Return the text of README.md with the table of today's records."""
    return _BLOCK.sub(lambda _: quality_table(folder), readme)


def _cell(values: dict[str, float], name: str) -> str:
    if name not in values:
        return "-"
    text = f"{values[name]:.3f}"
    is_best = text == f"{max(values.get(other, 0.0) for other in REPRESENTATIONS):.3f}"
    return f"**{text}**" if is_best else text


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")

"""``userrep evaluate``: what it refuses before Spark starts, and what it prints of results."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import Userrep, config_file
from userrep.cli import evaluate as cli_evaluate
from userrep.config import load_config
from userrep.errors import UsageError
from userrep.evaluation.results import Measured, Results
from userrep.items.versions import lineage_of
from userrep.spaces.registry import add_candidate, find_space, retire
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables
from userrep.workflows import evaluate

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path, config: Path) -> Tables:
    """Tables with a space of the configuration, one of another, and one that is retired."""
    tables = FileTables(None, str(tmp_path / "root"))
    mine = lineage_of(load_config(config))
    for space_id, lineage_id in {"mine": mine, "other": "l9", "retired": mine}.items():
        add_candidate(
            tables, space_id=space_id, lineage_id=lineage_id, trained_until=date(2024, 5, 1), content_hash="x"
        )
    retire(tables, find_space(tables, "retired"))
    return tables


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("absent", "space absent: not in the registry. Known spaces: mine, other, retired."),
        ("retired", "space retired is retired. Choose a space in use."),
        ("other", "space other has lineage l9, but this configuration has "),
    ],
)
def test_a_space_that_cannot_be_evaluated_is_refused_before_spark_starts(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path, space: str, said: str
) -> None:
    answer = userrep("evaluate", "--config", config, "--space", space, "--out", tmp_path / "out", "--json")
    assert (answer.code, len(answer.faults)) == (2, 1)
    assert json.loads(answer.out) == {"exit_code": 2, "faults": answer.faults}
    assert answer.faults[0].startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_before_the_space_is_looked_up(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("kept")
    answer = userrep("evaluate", "--config", config, "--out", tmp_path / "out")
    said = f"--out {tmp_path / 'out'}: the folder is not empty (notes.txt); name another one."
    assert (answer.code, answer.out, answer.faults) == (2, "", [said])
    assert not (tmp_path / "root").exists()


def measured(representation: str, value: float) -> Measured:
    return Measured("return_7d", "auc", representation, (value,), np.full(3, value), "linear", {"test": 3})


def test_results_are_printed_as_a_table_with_what_was_left_out_and_where_the_figures_are(
    userrep: Userrep, config: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    results = Results({}, [measured("embedding", 0.75), measured("counts", 0.5)], {}, {"next_item": "too few users"})

    def evaluated(work: Any, space: str | None, out: str, storages: Any) -> tuple[Results, dict[str, Any]]:
        asked.append((work, space, out, storages))
        return results, {"evaluation_id": "e1", "leads": {}}

    monkeypatch.setattr(evaluate, "evaluate_space", evaluated)
    monkeypatch.setattr(cli_evaluate, "context_for_run", lambda config: config.root)
    command = ("evaluate", "--config", config, "--space", "mine", "--out", tmp_path / "out")
    printed = userrep(*command)
    assert (printed.code, printed.err) == (0, "")
    head, row, *rest = printed.out.splitlines()
    assert head.split()[:4] == ["task", "metric", "embedding", "counts"]
    assert row.split()[:4] == ["return_7d", "auc", "0.7500", "0.5000"]
    assert row.endswith("over counts")
    assert rest == [
        "",
        "left out: next_item: too few users",
        f"metrics with confidence intervals, and a chart: {tmp_path / 'out'}",
    ]
    assert json.loads(userrep(*command, "--json").out) == {"evaluation_id": "e1", "leads": {}}
    assert asked == [(f"{tmp_path}/root", "mine", f"{tmp_path}/out", [])] * 2


def test_storage_types_are_a_list_of_known_names() -> None:
    assert cli_evaluate.storage_types("int8, float16,int8") == ["int8", "float16"]
    assert cli_evaluate.storage_types("") == []
    with pytest.raises(UsageError, match=r"--storage: expected types among float32, float16, int8, got int4, half\."):
        cli_evaluate.storage_types("int4,float16,half")

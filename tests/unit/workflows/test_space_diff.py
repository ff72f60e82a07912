"""What a comparison of two spaces asks for, and how it is printed."""

from datetime import date, datetime
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import snapshot
from userrep.errors import UsageError
from userrep.spaces.agreement import Agreement
from userrep.spaces.registry_state import Space
from userrep.spaces.snapshots import record_snapshots
from userrep.store.open import open_tables
from userrep.workflows.space_diff import ModelLoss, SavedModel, SpaceDiff, diff_lines, diff_spaces

pytestmark = pytest.mark.fast

AT = datetime(2024, 5, 1)
OLD, NEW = (Space(of, "ready", "l1", date(2024, 5, 1), "x", AT, AT) for of in ("s001-a", "s002-b"))


def test_a_saved_model_and_its_labels_must_both_exist(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    there, nowhere = str(tmp_path / "there"), str(tmp_path / "nowhere")
    SavedModel(there, there).check()
    with pytest.raises(UsageError) as caught:
        SavedModel(nowhere, nowhere).check()
    assert caught.value.faults == [f"--model {nowhere}: not found.", f"--labels {nowhere}: not found."]
    with pytest.raises(UsageError, match=r"^--labels .*nowhere: not found\.$"):
        SavedModel(there, nowhere).check()


def test_what_cannot_be_compared_is_refused_before_spark_is_needed(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tables = open_tables(config, None)
    with pytest.raises(UsageError, match=r"space s001-a cannot be compared with itself\. Name two spaces"):
        diff_spaces(tables, old=OLD, new=OLD)
    with pytest.raises(UsageError, match=r"--model .*nowhere: not found"):
        diff_spaces(tables, old=OLD, new=NEW, model=SavedModel(f"{tmp_path}/nowhere", str(tmp_path)))
    record_snapshots(tables, [snapshot(date(2024, 5, 1)), snapshot(date(2024, 5, 2), space="s002-b")])
    with pytest.raises(UsageError, match="s001-a and s002-b have no published snapshot of the same as-of date"):
        diff_spaces(tables, old=OLD, new=NEW)


def test_a_comparison_is_printed_with_the_loss_of_each_model() -> None:
    told = Agreement(12_345, 0.98765, 0.0421, 0.625, 2_000)
    since = date(2024, 5, 1)
    models = [ModelLoss("ads", since, 1_000, 0.8, 0.75, 0.05), ModelLoss("mail", since, 20, 0.5, 0.5125, -0.0125)]
    diff = SpaceDiff("s001-a", "s002-b", [date(2024, 5, 1), date(2024, 5, 8)], told, models)
    assert diff_lines(diff) == [
        "s002-b mapped into the coordinates of s001-a, 12,345 held-out vectors of 2 as-of dates up to 2024-05-08:",
        "  mean cosine               0.9877",
        "  residual                  0.0421 of the variance",
        "  same ten neighbors        62.5% (among 2,000 users)",
        "model of ads, 1,000 labels since 2024-05-01: AUC 0.8000 on s001-a, 0.7500 on s002-b mapped, loss +0.0500",
        "model of mail, 20 labels since 2024-05-01: AUC 0.5000 on s001-a, 0.5125 on s002-b mapped, loss -0.0125",
    ]

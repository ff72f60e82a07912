"""Training sets in files: labels of a task in pieces, and the span of a training set.

The rows that tasks write are compared with other joins in test_arrow_join.py, whole folders in test_embeddings.py.
"""

from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.errors import UserrepError
from userrep.joins import training_files
from userrep.joins.arrow_join import StoredVectors, joined_in_order
from userrep.joins.ledger import usable_sources
from userrep.joins.options import JoinOptions
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

NOON, TICK = datetime(2024, 5, 1, 12), timedelta.resolution
LABELS = pa.table(
    {
        "user_id": ["u1", "u1", None, "u1", "new", "u1"],
        "label_at": pa.array([NOON] * 6, pa.timestamp("us", "UTC")),
    }
)


def test_a_task_joins_its_labels_in_pieces_of_limited_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = LABELS.to_batches(2)
    monkeypatch.setattr(training_files, "_LABELS_AT_ONCE", 3)
    assert [piece.num_rows for piece in training_files._in_pieces(batches)] == [4, 2]
    monkeypatch.setattr(training_files, "_BYTES_AT_ONCE", 1)
    empty = batches[0].slice(0, 0)
    assert [piece.num_rows for piece in training_files._in_pieces([empty, *batches, empty])] == [2, 2, 2]


@pytest.mark.parametrize(
    ("span", "is_outside"),
    [((NOON, NOON), False), ((NOON - TICK, NOON - TICK), True), ((NOON + TICK, NOON + TICK), True)],
)
def test_a_label_outside_the_span_of_its_training_set_is_an_error(
    tmp_path: Path, span: tuple[datetime, datetime], is_outside: bool
) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(date(2024, 5, 1)): {"u1": [0.5]}})
    sources, options = usable_sources(tables, "s001-a"), JoinOptions()
    joined = joined_in_order(LABELS, replace(sources, span=span), StoredVectors.of(tables, sources, options), options)
    with pytest.raises(UserrepError, match=r"outside .* span, .* got 2024-05-01 12") if is_outside else nullcontext():
        assert sum(part.num_rows for part in joined) == 6

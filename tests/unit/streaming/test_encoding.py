"""Which rows of a micro-batch count, and what becomes of those without features."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.builders import config_of
from tests.support.records import RECORD
from tests.unit.inference.test_model import features, saved
from userrep.features.spec import FeatureSpec
from userrep.features.sums.item_matrix import VectorFiles
from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact
from userrep.sources.tombstones import NO_TOMBSTONES
from userrep.store.arrow import stacked
from userrep.store.bucket_reader import BucketFiles
from userrep.streaming.encoding import Encoding, PinnedBase, PinnedSpace

pytestmark = pytest.mark.fast

D14, D15, D16, D17 = (date(2024, 3, day) for day in (14, 15, 16, 17))


def counts(as_of: date, newest: list[date], today: date | None, tmp_path: Path) -> list[bool]:
    spec = FeatureSpec.of(config_of(tmp_path))
    times = [datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC) for day in newest]
    rows = pa.table({"newest_at": pa.array(times, pa.timestamp("us", "UTC"))})
    encoding = Encoding(spec, {}, (), today, 1, None, NO_TOMBSTONES)
    return encoding._needs_update(rows, as_of).tolist()


@pytest.mark.parametrize(
    ("as_of", "today", "counted"),
    [
        (D16, None, [False, True]),  # of two days: one of the day before the last, one of the last
        (D16, D14, [False, True]),
        (D16, D15, [True, True]),  # what is late changes vectors of today's date
        (D16, D16, [True, True]),  # and of yesterday's, while it is open
    ],
)
def test_what_is_late_counts_for_dates_that_have_begun(
    as_of: date, today: date | None, counted: list[bool], tmp_path: Path
) -> None:
    assert counts(as_of, [D14, D15], today, tmp_path) == counted


def test_nothing_is_encoded_for_a_date_of_which_nothing_has_come(tmp_path: Path) -> None:
    assert counts(D17, [D14, D15], D15, tmp_path) == [False, False]


def test_a_missing_base_is_waited_for_unless_its_date_is_left_to_the_batch(tmp_path: Path) -> None:
    bases = {D17: PinnedBase(D17, BucketFiles.of(()), VectorFiles((), 0.0))}
    spec = FeatureSpec.of(config_of(tmp_path))
    encoding = Encoding(spec, bases, (), D15, 1, None, NO_TOMBSTONES, waits_from=D16)
    assert encoding._has_base(D17)
    assert not encoding._has_base(D15)
    for missing in (D16, date(2024, 3, 18)):
        with pytest.raises(ValueError, match=f"no stream base for as-of date {missing}, the newest is 2024-03-17"):
            encoding._has_base(missing)


def test_a_user_with_nothing_before_the_as_of_date_gets_no_vector_and_no_empty_batch(tmp_path: Path) -> None:
    spec = FeatureSpec.of(config_of(tmp_path))
    bases = {D16: PinnedBase(D16, BucketFiles.of(()), VectorFiles((), 0.0))}
    encoding = Encoding(spec, bases, (PinnedSpace("s1", str(tmp_path), "hash", None),), D15, 1, None, NO_TOMBSTONES)
    at = datetime(2024, 3, 15, 12, tzinfo=UTC)
    profile = {"kind": "user", "at": at, "attributes": ["se"]}  # neither an event, nor a pick, nor a registration
    row = pa.RecordBatch.from_pydict(
        {
            "as_of": pa.array([D16]),
            "user_id": ["u1"],
            "newest_at": pa.array([at], pa.timestamp("us", "UTC")),
            "arrived_at": pa.array([at], pa.timestamp("us", "UTC")),
            "records": pa.array([[profile]], pa.list_(RECORD)),
        }
    )
    assert list(encoding([row])) == []


def test_streamed_vectors_are_rounded_as_those_of_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content_hash = saved(tmp_path / "s1", int8_scales=[0.125] * 16).content_hash
    users, at = pa.array(["u0", "u1", "u2"]), datetime(2024, 3, 15, 12, tzinfo=UTC)
    rows = features(3).append_column("user_id", users).append_column("as_of", pa.array([D16] * 3))
    monkeypatch.setattr(Encoding, "_features", lambda *_: (rows, users))
    encoding = Encoding(
        FeatureSpec.of(config_of(tmp_path)), {D16: PinnedBase(D16, BucketFiles.of(()), VectorFiles((), 0.0))},
        (PinnedSpace("s1", str(tmp_path / "s1"), content_hash, None),), D15, 1, None, NO_TOMBSTONES, "int8",
    )  # fmt: skip
    times = pa.array([at] * 3, pa.timestamp("us", "UTC"))
    records = pa.array([[{"kind": "user", "at": at, "attributes": ["se"]}]] * 3, pa.list_(RECORD))
    columns = {"as_of": pa.array([D16] * 3), "user_id": users, "newest_at": times, "arrived_at": times}
    (found,) = encoding([pa.RecordBatch.from_pydict(columns | {"records": records})])
    exact_UD = Encoder(load_artifact(str(tmp_path / "s1"))).embed(features(3))
    expected_UD = np.clip(np.rint(exact_UD * 8), -127, 127) / 8
    assert np.array_equal(stacked(found.column("embedding"), 16), expected_UD.astype(np.float32))

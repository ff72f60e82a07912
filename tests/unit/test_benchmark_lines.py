"""What benchmarks report and compare, without Spark: arithmetic, names, generated files."""

import ast
import importlib
import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import answers, features_growth, nights, training_data
from benchmarks.inference_data import UserSize, check_vectors
from benchmarks.logs import LogSize, log_files
from benchmarks.report import Skipped, alternating, growth_line, ratio_line
from benchmarks.results import GOALS, benchmark_modules, module_of
from benchmarks.savings_bill import Bill, Cost, break_even, line
from benchmarks.training_data import RowSize

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
FILES = {file.stem: file.read_text(encoding="utf-8") for file in sorted((ROOT / "benchmarks").glob("*.py"))}
NAMES = benchmark_modules()


def test_every_benchmark_states_its_question_and_its_command() -> None:
    for name in NAMES:
        text = ast.get_docstring(ast.parse(FILES[name])) or ""
        assert "?" in text, name
        assert f"    make bench-{name.replace('_', '-')}\n" in text
        assert f"    python -m benchmarks.{name} --small" in text


@pytest.mark.parametrize("name", FILES)
def test_every_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


def test_the_makefile_lists_only_benchmarks_that_exist_and_misses_none_of_a_kind() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.findall(r"^([A-Z]+)_BENCHES := ((?:.*\\\n)*.*)", makefile, flags=re.MULTILINE)
    listed = {kind: text.replace("\\", "").replace("-", "_").split() for kind, text in found}
    assert {name for names in listed.values() for name in names} <= set(NAMES)
    prefixes_by_kind = {
        "TRAINING": ("training_", "reader_"),
        "INFERENCE": ("inference_",),
        "JOIN": ("join_",),
        "STREAMING": ("stream_",),
    }
    for kind, prefixes in prefixes_by_kind.items():
        assert sorted(listed[kind]) == [name for name in NAMES if name.startswith(prefixes)]


def test_every_benchmark_runs_in_a_test() -> None:
    tests = (ROOT / "tests" / "system").glob("test_*benchmark*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in tests)
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", text)] == []


def test_benchmarks_with_a_goal_run_at_least_three_times() -> None:
    modules = {module_of(name) for name in GOALS}
    assert modules <= set(NAMES)
    assert [name for name in modules if re.search(r"\bruns=[12]\b", FILES[name])] == []


def test_a_ratio_below_one_means_that_we_are_faster_and_each_run_is_within_its_range() -> None:
    found = ratio_line("x_vs_y", {"rows": 7}, [(1.5, 2.0), (1.0, 2.5), (3.0, 1.5)], peer="Y", more=1)
    assert found == {
        "benchmark": "x_vs_y", "size": {"rows": 7}, "seconds": 1.5, "peer": "Y", "peer_seconds": 2.0, "ratio": 0.75,
        "runs": 3, "range": {"seconds": [1.0, 3.0], "peer_seconds": [1.5, 2.5], "ratio": [0.4, 2.0]}, "more": 1,
    }  # fmt: skip


def test_a_growth_of_one_is_linear_and_each_run_is_within_its_range() -> None:
    found = growth_line("x_growth", {"rows": 40}, {"rows": 10}, [(1.0, 4.0), (2.0, 4.0), (1.0, 6.0)], times=4, more=1)
    assert found == {
        "benchmark": "x_growth", "size": {"rows": 40}, "seconds": 4.0, "smaller_size": {"rows": 10},
        "smaller_seconds": 1.0, "value": 1.0, "runs": 3, "range": {"value": [0.5, 1.5]}, "more": 1,
    }  # fmt: skip


def test_savings_grow_with_the_teams_and_begin_at_the_break_even() -> None:
    def bill(begun: float, models: float, refresh: float, scores: float) -> Bill:
        nights = [[Cost(refresh)], [Cost(scores)]]
        return Bill(Cost(begun), Cost(models), *nights, {"return_7d": 0.8, "busy_7d": 0.6})

    bills = {"daily_sums": bill(0, 40, 0, 8), "shared": bill(100, 10, 10, 2)}  # of two teams
    few, many = (line("savings", [bills], {"users": 7}, num, peer="daily_sums") for num in (2, 10))
    assert few["cycle"]["own"]["cpu_seconds"] == 40 + 28 * 8
    assert few["cycle"]["shared"]["cpu_seconds"] == 100 + 10 + 28 * (10 + 2)
    assert few["value"] == round(1 - 446 / 264, 3)
    assert many["value"] == round(1 - (100 + 50 + 28 * (10 + 10)) / (200 + 28 * 40), 3)
    assert many["value_night"] == round(1 - 20 / 40, 3)
    assert few["cpu_per_team"]["10"] == {"daily_sums": 132.0, "shared": 71.0}
    assert few["break_even"] == round((100 + 280) / ((264 - 66) / 2), 2)
    assert break_even({"daily_sums": bills["shared"], "shared": bills["daily_sums"]}, "daily_sums") is None


def test_sides_alternate_and_answers_are_compared_before_the_second_run() -> None:
    seen: list[str] = []
    taken = alternating(
        lambda: seen.append("ours"), lambda: seen.append("peer"), check=lambda: seen.append("check"), runs=3
    )
    assert len(taken) == 3
    assert seen == ["ours", "peer", "check", "peer", "ours", "ours", "peer"]


def test_a_peer_that_fails_is_skipped_with_its_reason_and_ours_is_not() -> None:
    def failing() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(Skipped, match=r"the peer fails \(RuntimeError: out of memory\)"):
        alternating(lambda: None, failing, check=lambda: None, runs=1)
    with pytest.raises(RuntimeError):
        alternating(failing, lambda: None, check=lambda: None, runs=1)


def test_vectors_that_differ_are_not_compared() -> None:
    size = UserSize(users=80)
    ours, theirs = np.zeros((80, 120), np.float32), np.zeros((80, 120), np.float32)
    theirs[79, 119] = 0.00009
    check_vectors(ours, theirs, size)
    theirs[79, 119] = 0.00011
    for pair in ((ours, theirs), (ours[:79], ours[:79])):
        with pytest.raises(AssertionError, match="of 80 users, ours has"):
            check_vectors(*pair, size)


def test_rows_that_differ_are_not_compared() -> None:
    size = RowSize(rows=1024)
    training_data.check_rows((1024, 3, 4), (1024, 3, 4), size)
    with pytest.raises(AssertionError, match=r"of 1024 rows, ours delivers \(1024, 3, 4\) and the peer \(1024, 3, 5\)"):
        training_data.check_rows((1024, 3, 4), (1024, 3, 5), size)
    with pytest.raises(AssertionError, match="of 1024 rows"):
        training_data.check_rows((512, 3, 4), (512, 3, 4), size)


def test_a_checksum_depends_on_every_bit_but_not_on_the_order_of_rows() -> None:
    keys, x = np.array([5, 9, 2]), np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    whole = training_data.checksum([(keys, x)])
    order = [2, 0, 1]
    assert training_data.checksum([(keys[order][:1], x[order][:1]), (keys[order][1:], x[order][1:])]) == whole
    flipped = x.copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    assert training_data.checksum([(keys, flipped)]) != whole
    assert training_data.checksum([(keys + 1, x)]) != whole


def test_contents_that_differ_or_are_empty_are_not_compared() -> None:
    answers.check_same((3, 17), (3, 17))
    with pytest.raises(AssertionError, match="contents differ: 3 rows and 3 rows"):
        answers.check_same((3, 17), (3, 18))
    with pytest.raises(AssertionError, match="contents differ: 0 rows and 0 rows"):
        answers.check_same((0, 0), (0, 0))


def test_a_log_is_drawn_once_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    size = LogSize(events=1500, users=40, items=30, days=8)
    first, second = log_files(size, tmp_path / "a"), log_files(size, tmp_path / "b")
    other = log_files(replace(size, seed=8), tmp_path / "a")
    files = sorted(first[0].iterdir())
    assert len(files) == 8
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in files) == 1500
    assert all(file.read_bytes() == (second[0] / file.name).read_bytes() for file in files)
    assert files[0].read_bytes() != (other[0] / files[0].name).read_bytes()
    files[0].unlink()
    log_files(size, tmp_path / "a")
    assert not files[0].exists()  # it was not drawn again


def test_a_larger_log_has_as_many_events_per_user() -> None:
    assert features_growth.SIZE.of_events(80_000_000).users == 800_000


def test_a_log_of_nights_has_a_file_per_day_and_a_broken_day_has_only_unknown_users(tmp_path: Path) -> None:
    at = [datetime(2011, 10, day, 9) for day in (1, 1, 2, 3)]
    rows = pa.table({"user_id": ["17", "9", "17", "9"], "timestamp": pa.array(at, pa.timestamp("us"))})
    users = nights.write_days(rows, tmp_path, end=date(2011, 10, 3))
    assert len(users) == 2
    assert sorted(file.parent.name for file in tmp_path.rglob("*.parquet")) == ["day=2011-10-01", "day=2011-10-02"]
    file = tmp_path / "events" / "day=2011-10-01" / "events.parquet"
    assert sorted(pq.ParquetFile(file).read()["user_id"].to_pylist()) == users
    nights.break_day(file)
    broken = pq.ParquetFile(file).read()["user_id"].to_pylist()
    assert len({*broken, *users}) == 4
    assert nights.files_naming(tmp_path, broken[0]) == ["events/day=2011-10-01/events.parquet"]  # also if compressed

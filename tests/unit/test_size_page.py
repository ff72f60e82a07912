"""The extrapolation of the page on sizes follows from what the page says was measured."""

import json
import re
from pathlib import Path

import pytest

from userrep.config import Training
from userrep.store.buckets import NUM_BUCKETS, power_of_two

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "size.md").read_text(encoding="utf-8")
RESULTS = ROOT / "docs" / "results"
RECORD = json.loads((RESULTS / "daily_vs_script.json").read_text(encoding="utf-8"))
TRAINING = json.loads((RESULTS / "training_two_ranks.json").read_text(encoding="utf-8"))["line"]
SIZES = ((1, 5), (10, 80), (50, 400))  # million users, million events a day
MAX_ROWS = Training().max_rows / 1e6  # millions
SAMPLES = [NUM_BUCKETS // power_of_two(NUM_BUCKETS * MAX_ROWS / (13 * users)) for users, _ in SIZES]
BYTES = {
    what: float(size.replace(",", ""))
    for what, size in re.findall(r"(tiles|sums|features|rows|vectors) ([\d.,]+\d)", PAGE)
}


def row(label: str) -> list[float]:
    (cells,) = re.findall(rf"^\| {re.escape(label)} \|(.+)\|$", PAGE, flags=re.MULTILINE)
    return [float(cell.replace(",", "")) for cell in cells.split("|")]


def core_seconds(*stages: str) -> float:
    return sum(RECORD["line"]["by_stage"][stage] for stage in stages) * RECORD["line"]["size"]["cores"]


def test_times_are_those_of_the_recorded_daily_run_in_proportion_to_users_and_events() -> None:
    size = RECORD["line"]["size"]
    refresh = core_seconds("refresh_user_features") / size["users"] * 1e6
    user = refresh + core_seconds("embed_users", "publish_snapshot") / size["users"] * 1e6
    event = core_seconds("build_activity_tiles") / (size["events"] / size["days"]) * 1e6
    fixed = core_seconds("monitor_drift", "take_inventory")
    row_hours = 1e6 / TRAINING["rows_per_second"] * TRAINING["size"]["cores"] / 3600
    hours = {
        "a daily run, core hours": [(users * user + events * event + fixed) / 3600 for users, events in SIZES],
        "first run: tiles, core hours": [360 * events * event / 3600 for _, events in SIZES],
        "first run: features of 5 dates, core hours": [
            (5 + 38 / one_in) * users * refresh / 3600 for (users, _), one_in in zip(SIZES, SAMPLES, strict=True)
        ],
        "training, 8 epochs, core hours": [8 * min(13 * users, MAX_ROWS) * row_hours for users, _ in SIZES],
    }
    for label, expected in hours.items():
        assert row(label) == pytest.approx(expected, rel=0.02, abs=0.005), label
    cores = [4 * executors for executors in row("suggested executors")]
    total = [sum(stages) for stages in zip(*list(hours.values())[1:], strict=True)]
    assert row("tiles, features and training on these executors, hours") == pytest.approx(
        [hours / num for hours, num in zip(total, cores, strict=True)], rel=0.02
    )


def test_the_page_names_the_share_of_users_whose_features_are_only_trained_on() -> None:
    first, second, third = SAMPLES
    assert f"1 in {first}, {second} and {third:,} users" in PAGE.replace("\n  ", " ")


def test_storage_is_the_measured_bytes_times_rows() -> None:
    rows = {
        "tiles of 360 days, GB": [360 * events * BYTES["tiles"] for _, events in SIZES],
        "features of 192 dates, GB, with daily runs": [192 * users * BYTES["features"] for users, _ in SIZES],
        "40 snapshots, GB": [40 * users * BYTES["vectors"] for users, _ in SIZES],
        "training rows of a space, GB": [min(13 * users, MAX_ROWS) * BYTES["rows"] for users, _ in SIZES],
        "window sums, two generations, GB": [2 * users * BYTES["sums"] for users, _ in SIZES],
    }
    for label, megabytes in rows.items():
        assert row(label) == pytest.approx([size / 1000 for size in megabytes], abs=0.51), label

"""Do ten daily runs on Online Retail II stay correct, with a broken day and an erased user among them?

The log is written as one file per day, with a UUID for each user. `userrep pipeline` trains and promotes; then `userrep
daily` runs for each night, in a process of its own. On the fifth night the day's file is broken: every row has a new
user id, as if an upstream job had written session ids. The next day the file is corrected, and the daily run is
repeated. ``value`` counts errors: daily runs with the wrong outcome; vectors served after the refusal that differ from
those of the previous night; final features and vectors that are not bit-identical to those of a root without the broken
day; and files that still contain the erased user's id, compressed or not. ``seconds`` is the median daily run. The last
root is kept, so that its report can be viewed. About 20 minutes.

    make bench-nights
    python -m benchmarks.nights --small
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from benchmarks.report import Line, Skipped, ask, print_line, progress
from userrep.config import load_config

CONFIG = "conf/online_retail_ii.yaml"
AS_OF = date(2011, 10, 1)
DAY = timedelta(days=1)
DONE, REFUSED = 0, 3  # exit codes


@dataclass(frozen=True)
class NightsSize:
    """The number of nights; in the middle one, the day's file is broken."""

    nights: int = 10

    def of_nights(self, nights: int) -> "NightsSize":
        return replace(self, nights=nights)

    @property
    def broken(self) -> date:
        """The as-of date of the daily run that must be refused; the broken day is the one before."""
        return AS_OF + (self.nights + 1) // 2 * DAY

    @property
    def last(self) -> date:
        return AS_OF + self.nights * DAY


SIZE, SMALL = NightsSize(), NightsSize(nights=3)


def measure(size: NightsSize, folder: Path) -> Line:
    """Run all nights below an empty folder, and return the line."""
    config = load_config(CONFIG)
    assert config.events.path is not None
    assert config.users is not None
    if not Path(config.events.path).exists():
        raise Skipped(f"{CONFIG} names a log that is not here: {config.events.path}")
    folder.mkdir(parents=True)
    users = write_days(pq.read_table(config.events.path), folder / "log", end=size.last)
    pq.write_table(with_uuids(pq.read_table(config.users.path)), folder / "log" / "users.parquet")
    nights = Nights(folder)
    nights.run("pipeline", "--as-of", str(AS_OF))
    undisturbed = nights.copied(folder / "undisturbed")
    for k in range(1, size.nights + 1):
        nights.night(AS_OF + k * DAY, is_broken=AS_OF + k * DAY == size.broken)
    nights.compare(undisturbed, size.last)
    named = nights.forget(users[len(users) // 2])
    nights.run("report", "--out", str(folder / "report.html"))
    return {
        "benchmark": "nights",
        "size": {"log": "online_retail_ii", "users": len(users), **vars(size), "cores": os.cpu_count()},
        "seconds": round(median(nights.seconds), 1),
        "value": len(nights.faults),
        "faults": nights.faults,
        "refused": nights.refusals,
        "files_naming_the_user_before": named,
    }


@dataclass
class Nights:
    """A root, and the errors found in it. ``seconds``: of each daily run that should succeed."""

    folder: Path
    root: str = "root"
    faults: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        values = yaml.safe_load(Path(CONFIG).read_text(encoding="utf-8"))
        values["root"] = str(self.folder / self.root)
        values["events"] |= {
            "path": str(self.folder / "log" / "events"),
            "partition": {"column": "day", "holds": "event_date"},
        }
        values["items"]["path"] = str((Path(CONFIG).parent / values["items"]["path"]).resolve())
        values["users"]["path"] = str(self.folder / "log" / "users.parquet")
        values["drift"] = {"fail": {"new_share": 0.1, "vanished_share": 0.1}}
        values["tracking"] = {"mlflow": False}
        values["quality"] = {"self_check": False}
        self.config = self.folder / f"{self.root}.yaml"
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")

    def copied(self, to: Path) -> "Nights":
        """Copy the root."""
        shutil.copytree(self.folder / self.root, to)
        return Nights(self.folder, to.name, self.faults)

    def run(self, *arguments: str, wanted: int = DONE) -> str:
        """Run a userrep command as a process; an unexpected exit code is an error."""
        ended = run_process([*arguments, "--config", str(self.config)])
        last = (ended.stderr.strip().splitlines() or ["nothing said"])[-1]
        progress(f"userrep {' '.join(arguments)}: exit {ended.returncode}")
        if ended.returncode != wanted:
            self.faults.append(f"userrep {arguments[0]} ended with {ended.returncode}, not {wanted}: {last}")
        return ended.stdout if wanted == DONE else last

    def night(self, as_of: date, *, is_broken: bool) -> None:
        """Run one night; a broken one twice, with the broken and with the corrected file."""
        command = ("daily", "--as-of", str(as_of), "--as-if-on-time")
        if is_broken:
            served, whole = self.exported(as_of - DAY), self.day_file(as_of - DAY).read_bytes()
            break_day(self.day_file(as_of - DAY))
            self.refusals.append(self.run(*command, wanted=REFUSED))
            if self.newest() != str(as_of - DAY) or self.exported(as_of - DAY) != served:
                self.faults.append(f"after the refusal of {as_of} what serves is not that of the night before")
            self.day_file(as_of - DAY).write_bytes(whole)
        begun = time.monotonic()
        self.run(*command)
        self.seconds.append(time.monotonic() - begun)
        if self.newest() != str(as_of):
            self.faults.append(f"{self.newest()} serves after the night of {as_of}")

    def compare(self, undisturbed: "Nights", as_of: date) -> None:
        """Update the copy to the same date in one step, and compare to the bit."""
        undisturbed.run("daily", "--as-of", str(as_of), "--as-if-on-time")
        for what in ("features", "embeddings"):
            if self.exported(as_of, what) != undisturbed.exported(as_of, what):
                self.faults.append(f"{what} of {as_of} are not those of a root in which nothing broke")

    def forget(self, user: str) -> int:
        """Erase a user at once and search for the id; return the number of files that contained it before."""
        before = files_naming(self.folder / self.root, user)
        ids = self.folder / "forgotten.txt"
        ids.write_text(user, encoding="utf-8")
        self.run("forget", "--users", str(ids), "--now")
        left = files_naming(self.folder / self.root, user)
        self.faults += [f"{path} still names the user who was forgotten" for path in left]
        if not before:
            self.faults.append("the user who was to be forgotten stood nowhere")
        return len(before)

    def exported(self, as_of: date, what: str = "embeddings") -> pa.Table:
        """Export a date and return it, sorted by user."""
        out = self.folder / f"{self.root}-{what}-{as_of}"
        shutil.rmtree(out, ignore_errors=True)
        self.run("export", what, "--as-of", str(as_of), "--out", str(out))
        return pq.read_table(out).sort_by("user_id")

    def newest(self) -> str:
        """Return the as-of date of the newest published snapshot of the serving space."""
        spaces: list[dict[str, Any]] = json.loads(self.run("status", "--json"))["spaces"]
        serving = next(space for space in spaces if space["state"] == "serving")
        return max(str(one["as_of"]) for one in serving["snapshots"] if one["state"] == "published")

    def day_file(self, day: date) -> Path:
        return self.folder / "log" / "events" / f"day={day}" / "events.parquet"


def run_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a userrep command in a process of its own."""
    command = [sys.executable, "-m", "userrep.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_days(events: pa.Table, out: Path, *, end: date) -> list[str]:
    """Write the days of a log before ``end`` as one file each, with UUIDs as user ids; return these, sorted."""
    events = with_uuids(events)
    days = pc.cast(pc.floor_temporal(events["timestamp"], unit="day"), pa.date32())
    events = events.append_column("day", days).filter(pc.less(days, pa.scalar(end)))
    for day in pc.unique(events["day"]).to_pylist():
        file = out / "events" / f"day={day}" / "events.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(events.filter(pc.equal(events["day"], day)).drop_columns("day"), file)
    return sorted(pc.unique(events["user_id"]).to_pylist())


def with_uuids(rows: pa.Table) -> pa.Table:
    """Replace each user id by a UUID."""
    distinct = pc.unique(rows["user_id"].combine_chunks())
    uuids = pa.array([str(uuid5(NAMESPACE_OID, user)) for user in distinct.to_pylist()])
    at = rows.column_names.index("user_id")
    return rows.set_column(at, "user_id", uuids.take(pc.index_in(rows["user_id"], distinct)))


def break_day(file: Path) -> None:
    """Give each row of a day a user of its own."""
    rows = pq.read_table(file)
    ids = pa.array([str(uuid5(NAMESPACE_OID, f"session-{k}")) for k in range(len(rows))])
    pq.write_table(rows.set_column(rows.column_names.index("user_id"), "user_id", ids), file)


def files_naming(folder: Path, *texts: str) -> list[str]:
    """List the files that contain one of the texts, in their bytes or in decompressed Parquet."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet" and content:
            content += str(pq.ParquetFile(path).read().to_pylist()).encode()
        if any(text.encode() in content for text in texts):
            found.append(str(path.relative_to(folder)))
    return found


def main() -> None:
    """Run with the arguments of the command line, and print the line."""
    asked = ask("nights", SIZE, small=SMALL, runs=1, unit="nights", number=SIZE.nights, resized=SIZE.of_nights)
    folder = asked.root / "nights"
    shutil.rmtree(folder, ignore_errors=True)
    print_line("nights", lambda: measure(asked.size, folder))


if __name__ == "__main__":
    main()

"""The demo: a generated log, the whole pipeline on it, and a table of what happened."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from userrep.config import Config, load_config
from userrep.ids import short_hash
from userrep.store.storage import exists, read_bytes, write_bytes
from userrep.synthetic.generator import LogSpec, generate_log

CONFIG = Path(__file__).with_name("demo.yaml")
SPEC = LogSpec(num_users=3000, num_items=600, first_day=date(2024, 1, 1), num_days=150, seed=7)
AS_OF = date(2024, 5, 25)


def demo_config(overrides: list[str]) -> Config:
    """Load the demo's configuration as if it were ``conf/demo.yaml`` below the working directory."""
    return load_config(CONFIG, overrides, folder="conf")


def ensure_log(spark: SparkSession, config: Config, spec: LogSpec, report: Callable[[str], None]) -> bool:
    """Generate the log of a configuration, unless this very log is there. Returns whether it was generated."""
    folder = str(Path(config.events.all_sources["events"].path).parent)
    stamp, wanted = f"{folder}/spec-hash", short_hash(vars(spec)).encode()
    if exists(stamp) and read_bytes(stamp, max_bytes=100) == wanted:
        return False
    report(f"generating {spec.num_users:,} users' events of {spec.num_days} days into {folder}")
    generate_log(spark, spec, folder)
    write_bytes(stamp, wanted)
    return True

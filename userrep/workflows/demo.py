"""The demo: its configuration, its as-of date and the event log it generates."""

import logging
from datetime import date
from pathlib import Path

from userrep.config import Config, load_config
from userrep.errors import UsageError, shortened
from userrep.ids import short_hash
from userrep.store.filesystem import exists, folder_names, read_bytes, write_bytes
from userrep.synthetic.generator import LogSpec, generate_small_log

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).with_name("demo.yaml")
OF_REPOSITORY = Path("conf/demo.yaml")  # the same file, where the repository is the working directory
SPEC = LogSpec(num_users=3000, num_items=600, first_day=date(2024, 1, 1), num_days=150, seed=7)
AS_OF = date(2024, 5, 25)


def demo_config(overrides: list[str]) -> Config:
    """Load the configuration of the demo. Its paths are resolved as in ``conf/demo.yaml`` of the working directory."""
    return load_config(CONFIG, overrides, folder="conf")


def config_file() -> Path:
    """Return the configuration file of the demo for further commands: conf/demo.yaml of the working directory.

    If that does not exist, the demo was installed without the repository. Then the packaged file is written to the
    demo's root, with paths relative to it, unless an earlier demo has.
    """
    if OF_REPOSITORY.exists():
        return OF_REPOSITORY
    file = Path("build/demo/userrep.yaml")
    if not file.exists():
        text = CONFIG.read_text(encoding="utf-8").replace("../build/demo/", "").replace("../build/demo", ".")
        write_bytes(str(file), text.encode())
    return file


def ensure_log(config: Config, spec: LogSpec) -> None:
    """Generate the event log of a configuration, unless the same log exists.

    Raises UsageError if its folder has files, but no log that was generated, or begun, by this function.
    """
    folder = str(Path(config.events.all_sources["events"].path).parent)
    hash_file, spec_hash = f"{folder}/spec-hash", short_hash(vars(spec)).encode()
    known = read_bytes(hash_file, max_bytes=100) if exists(hash_file) else None
    if known == spec_hash:
        return
    if known is None and (names := folder_names(folder)):
        raise UsageError(
            f"events.path: the demo would replace the files in {folder} ({shortened(names, most=3)}) by a generated "
            "log. Use an empty folder, or run `userrep pipeline` on your own log."
        )
    write_bytes(hash_file, b"begun")
    logger.info(f"generating {spec.num_days} days of events for {spec.num_users:,} users in {folder}")
    generate_small_log(spec, folder)
    write_bytes(hash_file, spec_hash)

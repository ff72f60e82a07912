"""Checks of a configuration against its sources that need no Spark and no more than their listing and footers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from userrep.config import Config, Source
from userrep.errors import UsageError, first_line, results_of
from userrep.features.preflight import check_before_spark, check_format, is_on_disk, local_schema, log_days
from userrep.features.profiles import mapped_columns, source_of
from userrep.sources.columns import check_columns
from userrep.sources.listing import Listings, read_footer
from userrep.sources.sample import spark_columns, take_sample
from userrep.workflows.log_fit import check_until

_JSON_BYTES = 1 << 22  # of a smaller source, all lines are read for their fields


def source_faults(config: Config) -> tuple[list[str], list[str]]:
    """Return all faults, of paths, files, columns and types, and of the end of training. Cost: under a second.

    Also return one line per source whose columns only a run can check.
    """
    unchecked: dict[str, None] = {}
    listings = Listings()

    def check_files(section: str, source: Source, columns: dict[str, str]) -> None:
        if not _check_files(source, columns, section, listings):
            unchecked[f"{source_of(section)}.path {source.path}"] = None

    checks: list[Callable[[], object]] = [partial(_check_root, config)]
    checks.append(partial(check_before_spark, config, (), listings))
    checks += [partial(check_files, *mapped) for mapped in mapped_columns(config)]
    checks.append(partial(_check_until, config, listings))
    try:
        results_of(checks)
    except UsageError as error:
        return error.faults, list(unchecked)
    return [], list(unchecked)


def _check_root(config: Config) -> None:
    """Check that the root, if it exists on a local disk, is a folder."""
    if config.root is not None and Path(config.root).exists() and not Path(config.root).is_dir():
        raise UsageError(f"root {config.root}: a file. Name a folder, which need not exist yet.")


def _check_files(source: Source, columns: dict[str, str], section: str, listings: Listings) -> bool:
    """Check that a local source has files of its format that can be opened, and the fields of a small JSON source.

    Returns whether the columns could be checked, here or by ``check_before_spark``.
    """
    if not is_on_disk(source):
        return False
    what = source_of(section)
    first = listings.files(source, what)[0]
    check_format(source, what, listings)
    if source.format == "parquet":
        try:
            read_footer(first)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{what}.path {first.path}: not readable as parquet ({first_line(error)}).") from None
    if source.format != "json":
        return local_schema(source, what, listings) is not None
    sample = take_sample(source, what, listings, max_text_bytes=_JSON_BYTES)
    if sample.is_complete:
        check_columns(spark_columns(sample), columns, section)
    return sample.is_complete


def _check_until(config: Config, listings: Listings) -> None:
    """Check the end of training against the log's days, if its footers contain them."""
    first_day, last_day = log_days(config, listings)
    if first_day is not None and last_day is not None:
        check_until(config, first_day, last_day)

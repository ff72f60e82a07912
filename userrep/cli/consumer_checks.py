"""``userrep doctor --as consumer``: checks that this user can read embeddings here, and what this user may write.

Everything is only read. The checks need no Spark below a root of files.
"""

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from userrep.cli.check_result import CheckResult, checked
from userrep.client.open_target import load_target, tables_at
from userrep.config import Config
from userrep.config.environment import package_version
from userrep.errors import UsageError, plural
from userrep.model.frozen_folder import MANIFEST, MAX_MANIFEST
from userrep.spaces.registry import Space, artifact_folder, read_registry
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.data_files import matches
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import is_local, parquet_footer, read_bytes
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.write_access import check_writable


def consumer_checks(target: str | Config) -> Iterator[CheckResult]:
    """Yield the result of each check of a target of ``userrep.open``, in the order in which a join needs them.

    What only some consumers need is ``ok`` even where it is missing, and says who needs it.
    Cost: the ledgers, and one file of the newest snapshot.
    """
    yield CheckResult("python", True, platform.python_version())
    versions = {name: package_version(name) for name in ("pyarrow", "deltalake", "pyspark", "torch")}
    packages = [f"{name} {version}" if version else f"no {name}" for name, version in versions.items()]
    yield CheckResult("packages", True, ", ".join(packages))
    tables = tables_at(load_target(target), None)
    serving = cache(lambda: _serving(tables))
    published = cache(lambda: _published(tables, serving()))
    yield (readable := checked("registry", lambda: f"{serving().space_id} serves"))
    if not readable.ok:
        return
    yield checked("snapshots", lambda: _described(published()))
    cure = f"Request read access to table user_embeddings of {tables.location}."
    yield replace(checked("user_embeddings", lambda: _vectors(tables, published()[-1])), cure=cure)
    yield _optional("embedding_updates", "joins with updates=True", lambda: _updates(tables))
    need = 'missing="new_user", maps between spaces and EmbeddingModel'
    yield _optional("artifacts", need, lambda: _artifact(tables, serving()))
    yield _optional("writing", "registering consumers and recording training sets", lambda: _writing(tables))


def _serving(tables: Tables) -> Space:
    serving = read_registry(tables).serving
    if serving is None:
        raise UsageError("no space serves yet. The producer promotes one with `userrep spaces promote ID`.")
    return serving


def _published(tables: Tables, space: Space) -> list[Snapshot]:
    """Return the published snapshots, at least one."""
    published = list_snapshots(tables, space.space_id)
    if not published:
        raise UsageError(f"{space.space_id} has no published snapshot. The producer builds one with `userrep daily`.")
    return published


def _described(published: list[Snapshot]) -> str:
    newest = published[-1]
    return f"{len(published)} published, the newest of {newest.as_of} with {plural(newest.num_users, 'user')}"


def _vectors(tables: Tables, newest: Snapshot) -> str:
    if isinstance(tables, FileTables):
        for file in tables.files(USER_EMBEDDINGS, matches([newest.key]))[:1]:
            parquet_footer(file.uri)
    else:
        tables.read(USER_EMBEDDINGS, [newest.key]).limit(1).collect()
    return "readable"


def _updates(tables: Tables) -> str:
    return "readable" if tables.version(EMBEDDING_UPDATES) else "no streamed vectors"


def _artifact(tables: Tables, space: Space) -> str:
    read_bytes(f"{artifact_folder(tables, space)}/{MANIFEST}", max_bytes=MAX_MANIFEST)
    return "readable"


def _writing(tables: Tables) -> str:
    if not isinstance(tables, FileTables) or not is_local(tables.location):
        return "not checked here, as this would write"
    check_writable(tables.location)
    return "permitted"


def _optional(name: str, need: str, check: Callable[[], str]) -> CheckResult:
    """Check what a join by itself does not need; only ``need`` does."""
    result = checked(name, check)
    return CheckResult(name, True, result.found if result.ok else f"only needed for {need}: {result.found}")

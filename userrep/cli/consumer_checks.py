"""``userrep doctor --as consumer``: checks that this user can read embeddings here, and what this user may write.

Everything is only read. The checks need no Spark below a root of files.
"""

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import replace

from userrep.cli.finding import Finding, checked, python_version
from userrep.client.embeddings import Embeddings
from userrep.client.target import load_target
from userrep.config import Config
from userrep.errors import UsageError
from userrep.model.frozen_folder import MANIFEST
from userrep.spaces.registry_state import Space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import read_bytes
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.write_access import check_writable

_MAX_MANIFEST = 1 << 24  # bytes


def consumer_findings(target: str | Config) -> Iterator[Finding]:
    """Yield the result of each check of a target of ``userrep.open``, in the order in which a join needs them.

    What only some consumers need is ``ok`` even where it is missing, and says who needs it.
    Cost: the ledgers, and one file of the newest snapshot.
    """
    yield python_version()
    yield Finding("packages", True, ", ".join(map(_package, ("pyarrow", "deltalake", "pyspark", "torch"))))
    embeddings = Embeddings(load_target(target))
    tables = embeddings.tables
    yield (readable := checked("registry", lambda: _serving(embeddings).space_id + " serves"))
    if not readable.ok:
        return
    space = _serving(embeddings)
    yield checked("snapshots", lambda: _snapshots(tables, space))
    cure = f"Request read access to table user_embeddings of {tables.location}."
    yield replace(checked("user_embeddings", lambda: _vectors(tables, space)), cure=cure)
    yield _optional("embedding_updates", "joins with updates=True", lambda: _updates(tables))
    need = 'missing="new_user", maps between spaces and EmbeddingModel'
    yield _optional("artifacts", need, lambda: _artifact(tables, space))
    yield _optional("writing", "registering consumers and recording training sets", lambda: _writing(tables))


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"


def _serving(embeddings: Embeddings) -> Space:
    spaces = [space for space in embeddings.spaces() if space.state == "serving"]
    if not spaces:
        raise UsageError("no space serves yet. The producer promotes one with `userrep spaces promote ID`.")
    return spaces[0]


def _snapshots(tables: Tables, space: Space) -> str:
    published, newest = _published(tables, space)
    return f"{published} published, the newest of {newest.as_of} with {newest.num_users} users"


def _published(tables: Tables, space: Space) -> tuple[int, Snapshot]:
    """Return the number of published snapshots, and the newest one."""
    published = list_snapshots(tables, space.space_id)
    if not published:
        raise UsageError(f"{space.space_id} has no published snapshot. The producer builds one with `userrep daily`.")
    return len(published), published[-1]


def _vectors(tables: Tables, space: Space) -> str:
    _, newest = _published(tables, space)
    if isinstance(tables, FileTables):
        for file in tables.files(USER_EMBEDDINGS, lambda values: values == newest.key)[:1]:
            read_bytes(file.uri, max_bytes=file.size)
    else:
        tables.read(USER_EMBEDDINGS).where(newest.where).limit(1).collect()
    return "readable"


def _updates(tables: Tables) -> str:
    return "readable" if tables.version(EMBEDDING_UPDATES) else "no streamed vectors"


def _artifact(tables: Tables, space: Space) -> str:
    read_bytes(f"{tables.artifacts_root}/{space.artifact}/{MANIFEST}", max_bytes=_MAX_MANIFEST)
    return "readable"


def _writing(tables: Tables) -> str:
    if not isinstance(tables, FileTables) or "://" in tables.location:
        return "not checked here, as this would write"
    check_writable(tables.location)
    return "permitted"


def _optional(name: str, need: str, check: Callable[[], str]) -> Finding:
    """Check what a join by itself does not need; only ``need`` does."""
    finding = checked(name, check)
    return Finding(name, True, finding.found if finding.ok else f"only needed for {need}: {finding.found}")

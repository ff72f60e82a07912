"""The folder of a stream's checkpoints, and the checks before a stream continues from them."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from userrep.config import Config
from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.items.versions import lineage_of
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import delete_folder, exists, folder_names, read_bytes, write_bytes
from userrep.store.schemas import EMBEDDING_UPDATES, REJECTED_EVENTS
from userrep.streaming.sources import stream_sources

_MAX_BYTES = 2**22
_QUERIES = ("embeddings", "rejects")


def stream_lease(query_id: str) -> str:
    """Return the lease that the process of a stream holds."""
    return f"stream-{query_id}"


def rejects_id(query_id: str) -> str:
    """Return the id of a stream's query of rejected rows."""
    return f"{query_id}-rejects"


class StreamCheckpoint(NamedTuple):
    """The folder of a stream, with ``stream.json`` and Spark's checkpoints."""

    tables: FileTables
    query_id: str

    @property
    def folder(self) -> str:
        return f"{self.tables.artifacts_root}/streams/{checked_name(self.query_id, 'query id')}"

    def check(self, config: Config, *, is_new: bool) -> None:
        """Refuse to continue if the stream would lose, repeat or mix rows.

        Raises
        ------
        UsageError
            If a new stream has the name of an existing one. If a checkpoint is missing although the stream has
            committed rows: new batch ids would then be skipped as committed. If the stream was started with other
            sources, broker, open days or lineage.
        """
        has_written, has_begun = self._progress()
        if is_new and has_begun:
            raise UsageError(f"--new-query-id: the stream already exists, got {self.query_id}. Choose another name.")
        if has_written and not all(exists(f"{self.folder}/{query}/offsets") for query in _QUERIES):
            raise UsageError(
                f"stream {self.query_id}: it has written rows, but its checkpoint {self.folder} is missing or "
                "incomplete. Start again from the oldest open day with `userrep stream --new-query-id NAME`, and set "
                "stream.query_id: NAME."
            )
        started_with = self._read_settings()
        if has_begun and started_with is not None:
            faults = [
                f"stream {self.query_id}: started with {name} {started_with.get(name)}, got {value}. Start a new "
                "stream with `userrep stream --new-query-id NAME`."
                for name, value in _state_settings(config).items()
                if started_with.get(name) != value
            ]
            if faults:
                raise UsageError(faults)

    def claim(
        self, config: Config, schemas: Callable[[], dict[str, str]], *, since: date
    ) -> tuple[dict[str, str], date | None]:
        """Record the settings of a stream that has not finished a batch.

        Return the schemas of its first start, and the day from which its state has all records: None if it is unknown,
        because stream.json was lost. ``schemas`` returns the current schemas. It is called only for such a stream. If
        the settings differ from those of an earlier start, what that start left is deleted: Spark would continue with
        the offsets of its sources.
        """
        settings, (_, has_begun) = self._read_settings(), self._progress()
        if settings is None or not has_begun:
            current = _state_settings(config) | {"since": None if has_begun else str(since), "schemas": schemas()}
            if settings != current:
                for query in _QUERIES if settings is not None else ():
                    delete_folder(f"{self.folder}/{query}")
                write_bytes(f"{self.folder}/stream.json", json.dumps(current, indent=1).encode())
            settings = current
        day = settings.get("since")
        return settings["schemas"], date.fromisoformat(day) if day else None

    def _progress(self) -> tuple[bool, bool]:
        """Return whether a query has committed rows, and whether one has finished a batch, even one without rows."""
        writers = ((EMBEDDING_UPDATES, self.query_id), (REJECTED_EVENTS, rejects_id(self.query_id)))
        has_written = any(self.tables.last_transaction(table, name) is not None for table, name in writers)
        commits = (name for query in _QUERIES for name in folder_names(f"{self.folder}/{query}/commits"))
        return has_written, has_written or any(name.isdigit() for name in commits)

    def _read_settings(self) -> dict[str, Any] | None:
        path = f"{self.folder}/stream.json"
        return json.loads(read_bytes(path, max_bytes=_MAX_BYTES)) if exists(path) else None


def _state_settings(config: Config) -> dict[str, Any]:
    """Return the settings that the state of a stream depends on."""
    stream = config.streaming
    return {
        "sources": {name: source.topic or source.path for name, source in stream_sources(config).items()},
        "broker": stream.kafka.bootstrap_servers if stream.kafka else None,
        "open_days": stream.open_days,
        "lineage": lineage_of(config),
    }

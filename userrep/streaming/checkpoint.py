"""The folder of a stream's checkpoints, and the checks before a stream continues from them."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from userrep.config import Config
from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.items.versions import lineage_of
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import exists, read_bytes, write_bytes
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.streaming.sources import sources_of

_MAX_BYTES = 2**22


class StreamCheckpoint(NamedTuple):
    """The folder of a stream below ``root``, with ``stream.json`` and Spark's checkpoints."""

    root: str
    query_id: str

    @property
    def folder(self) -> str:
        return f"{self.root}/streams/{checked_name(self.query_id, 'query id')}"

    def check(self, tables: FileTables, config: Config, *, is_new: bool) -> None:
        """Refuse to continue if the stream would lose, repeat or mix rows.

        Raises
        ------
        UsageError
            If a new stream has the name of an existing one. If a checkpoint is missing although the stream has
            committed rows: new batch ids would then be skipped as committed. If the stream was started with other
            sources, broker, open days or lineage.
        """
        has_written = tables.last_transaction(EMBEDDING_UPDATES, self.query_id) is not None
        has_offsets = [exists(f"{self.folder}/{query}/offsets") for query in ("embeddings", "rejects")]
        if is_new and (any(has_offsets) or has_written):
            raise UsageError(f"--new-query-id: the stream already exists, got {self.query_id}. Choose another name.")
        if has_written and not all(has_offsets):
            raise UsageError(
                f"stream {self.query_id}: it has written embeddings, but its checkpoint {self.folder} is missing or "
                "incomplete. Start again from the oldest open day with `userrep stream --new-query-id NAME`, and set "
                "stream.query_id: NAME."
            )
        started_with = self._read_settings()
        if any(has_offsets) and started_with is not None:
            faults = [
                f"stream {self.query_id}: started with {name} {started_with.get(name)}, got {value}. Start a new "
                "stream with `userrep stream --new-query-id NAME`."
                for name, value in _state_settings(config).items()
                if started_with.get(name) != value
            ]
            if faults:
                raise UsageError(faults)

    def claim(self, config: Config, schemas: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Record the settings of a stream on its first start. Return the schemas that it was started with.

        ``schemas`` returns the current schemas. It is called only on the first start.
        """
        settings = self._read_settings()
        if settings is None:
            settings = _state_settings(config) | {"schemas": schemas()}
            write_bytes(f"{self.folder}/stream.json", json.dumps(settings, indent=1).encode())
        return dict(settings["schemas"])

    def _read_settings(self) -> dict[str, Any] | None:
        path = f"{self.folder}/stream.json"
        return json.loads(read_bytes(path, max_bytes=_MAX_BYTES)) if exists(path) else None


def _state_settings(config: Config) -> dict[str, Any]:
    """Return the settings that the state of a stream depends on."""
    stream = config.streaming
    return {
        "sources": {name: source.topic or source.path for name, source in sources_of(config).items()},
        "broker": stream.kafka.bootstrap_servers if stream.kafka else None,
        "open_days": stream.open_days,
        "lineage": lineage_of(config),
    }

"""Where a stream keeps its checkpoint, and whether it may go on from there."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from userrep.config import Config
from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.items.versions import lineage_of
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.store.storage import exists, read_bytes, write_bytes
from userrep.streaming.arriving import sources_of

_MOST_BYTES = 2**22


class StreamPlace(NamedTuple):
    """The folder of a stream, below that of the artifacts: ``stream.json``, and Spark's checkpoints."""

    root: str
    query_id: str

    @property
    def folder(self) -> str:
        return f"{self.root}/streams/{checked_name(self.query_id, 'query id')}"

    def check(self, tables: FileTables, config: Config, *, is_new: bool) -> None:
        """Refuse to go on where it would lose, repeat or mix something.

        Raises
        ------
        UsageError
            If the checkpoint is gone although rows of this stream were committed, since these would be passed over; if
            it was begun with other sources or other open days; if a new stream has the name of one that there is.
        """
        parts = [exists(f"{self.folder}/{query}/offsets") for query in ("embeddings", "rejects")]
        has_checkpoint = any(parts)
        if is_new and (has_checkpoint or self._has_written(tables)):
            raise UsageError(f"--new-query-id {self.query_id}: there is such a stream already; choose another name.")
        if not all(parts) and not is_new and self._has_written(tables):
            raise UsageError(
                f"stream {self.query_id}: its checkpoint {self.folder} is gone, or a part of it, but it has written "
                "embeddings. `userrep stream --new-query-id NAME` begins again from the oldest open day (then set "
                "stream.query_id: NAME)."
            )
        if has_checkpoint and (begun := self._begun()) is not None:
            faults = [
                f"stream {self.query_id}: begun with {name} {begun.get(name)}, now {value}; `userrep stream "
                "--new-query-id NAME` begins anew with it"
                for name, value in _fixed(config).items()
                if begun.get(name) != value
            ]
            if faults:
                raise UsageError(faults)

    def claim(self, config: Config, schemas: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Write down what the stream is begun with, where that is not done; return the schemas that it was begun with.

        ``schemas``: finds those of now.
        """
        begun = self._begun()
        if begun is None:
            begun = _fixed(config) | {"schemas": schemas()}
            write_bytes(f"{self.folder}/stream.json", json.dumps(begun, indent=1).encode())
        return dict(begun["schemas"])

    def _begun(self) -> dict[str, Any] | None:
        path = f"{self.folder}/stream.json"
        return json.loads(read_bytes(path, max_bytes=_MOST_BYTES)) if exists(path) else None

    def _has_written(self, tables: FileTables) -> bool:
        return tables.last_transaction(EMBEDDING_UPDATES, self.query_id) is not None


def _fixed(config: Config) -> dict[str, Any]:
    """Return what a checkpoint's state depends on."""
    stream = config.streaming
    return {
        "sources": {what: source.topic or source.path for what, source in sources_of(config).items()},
        "broker": stream.kafka.bootstrap_servers if stream.kafka else None,
        "open_days": stream.open_days,
        "lineage": lineage_of(config),
    }

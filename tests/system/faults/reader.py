"""A consumer in a thread that checks, while commands run and are killed, that each published snapshot is whole."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow.parquet as pq
from deltalake import DeltaTable

from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY, SNAPSHOTS, USER_EMBEDDINGS

_PAUSE = 0.5  # seconds between two looks


class Reader:
    """Reads a root until the block ends. ``faults``: broken promises; ``looks``: number of reads."""

    def __init__(self, root: Path) -> None:
        self.faults: list[str] = []
        self.looks = 0
        self._tables = FileTables(None, str(root))
        self._served = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(_PAUSE):
            try:
                self.faults += self.look()
            except Exception as error:  # a reader that fails is a fault
                self.faults.append(repr(error))
            self.looks += 1

    def look(self) -> list[str]:
        """Compare every published snapshot with the ledger. Writes nothing and creates no table."""
        if not all(
            DeltaTable.is_deltatable(self._tables.uri(table)) for table in (REGISTRY, SNAPSHOTS, USER_EMBEDDINGS)
        ):
            return []
        registry = read_registry(self._tables)
        served, self._served = self._served, registry.serving is not None
        faults = ["no space serves any more"] if served and not self._served else []
        for space in registry.spaces:
            before = list_snapshots(self._tables, space.space_id)
            files = self._tables.files(USER_EMBEDDINGS)
            found = {snapshot.snapshot_id: self._num_users(snapshot, files) for snapshot in before}
            still = {snapshot.snapshot_id for snapshot in list_snapshots(self._tables, space.space_id)}
            faults += [
                f"{s.snapshot_id}: {found[s.snapshot_id]} users, {s.num_users} in the ledger"
                for s in before
                if s.snapshot_id in still and not self._is_whole(found[s.snapshot_id], s.num_users)
            ]
        return faults

    def _is_whole(self, found: int, in_ledger: int) -> bool:
        return found == in_ledger

    def _num_users(self, snapshot: Snapshot, files: Sequence[TableFile]) -> int:
        wanted = {"space_id": snapshot.space_id, "as_of": snapshot.as_of, "revision": snapshot.revision}
        files = [file for file in files if file.values == wanted]
        folder = self._tables.uri(USER_EMBEDDINGS)
        users = [pq.read_table(f"{folder}/{f.path}", columns=["user_id"], partitioning=None) for f in files]
        return len({user for part in users for user in part["user_id"].to_pylist()})


class ReaderWhileUsersLeave(Reader):
    """A reader during an erasure, when snapshots lose users before the ledger records it."""

    def _is_whole(self, found: int, in_ledger: int) -> bool:
        return 0 < found <= in_ledger

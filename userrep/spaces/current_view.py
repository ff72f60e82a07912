"""The view ``user_embeddings_current`` of a catalog: for SQL users, the vectors that ``latest()`` returns in Python."""

from userrep.store.schemas import REGISTRY, SNAPSHOTS, USER_EMBEDDINGS
from userrep.store.tables import Tables

NAME = "user_embeddings_current"


def keep_current_view(tables: Tables) -> None:
    """Create the view in a catalog if it is missing; elsewhere do nothing.

    Grain: a user of the newest published and available snapshot of the serving space; empty if nothing serves. The
    view looks the snapshot up each time it is read, so a promotion or a new snapshot needs no change of the view.
    Cost of reading: two ledgers, and the files of one snapshot (its keys are partitions).
    """
    query = f"""
        SELECT vectors.user_id, newest.snapshot_id, vectors.space_id, vectors.as_of, vectors.embedding
        FROM {tables.name(USER_EMBEDDINGS)} vectors JOIN (
          SELECT s.space_id, s.as_of, s.revision, s.snapshot_id
          FROM {tables.name(SNAPSHOTS)} s
          JOIN {tables.name(REGISTRY)} r ON r.kind = 'space' AND r.state = 'serving' AND r.name = s.space_id
          WHERE s.state = 'published' AND s.available_at <= current_timestamp()
          ORDER BY s.as_of DESC, s.revision DESC
          LIMIT 1
        ) newest USING (space_id, as_of, revision)
    """
    tables.keep_view(NAME, query)

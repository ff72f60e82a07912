"""``userrep.open``: the embeddings of one installation, for the teams that train models on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import pandas as pd
import pyarrow as pa

from userrep.client.frames import (
    Listed,
    join_frame,
    label_keys,
    label_table,
    listed_ids,
    newest_frame,
    newest_table,
    with_added,
)
from userrep.client.open_target import load_target, tables_at
from userrep.config import Config
from userrep.errors import UsageError
from userrep.joins.ledger import usable_sources
from userrep.joins.options import JoinOptions, JoinParams
from userrep.joins.training_sets import TRAINING_SET_ID, create_training_set, create_training_table
from userrep.spaces import consumers
from userrep.spaces.registry import Space, find_space, list_spaces
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY, TRAINING_SETS, TableSchema
from userrep.store.tables import Tables
from userrep.store.write_access import check_writable

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame, SparkSession

    from userrep.audiences.audience import Audience

Labels = TypeVar("Labels")


def open(target: str | os.PathLike[str] | Config, *, spark: SparkSession | None = None) -> Embeddings:  # noqa: A001
    """Open the embeddings of an installation for reading and joining. Reading never writes.

        embeddings = userrep.open("build/demo")
        joined = embeddings.join(labels)

    Cost: one read of the registry. Spark is started only by what needs it: tables in a catalog, and joins with
    ``updates=True``.

    Parameters
    ----------
    target : path or URI of a root; path of a configuration file (.yaml or .yml); a ``Config``; or ``catalog.schema``.
    spark : session to use where Spark is needed, by default the active session, or a new one.

    Raises
    ------
    UsageError
        If there are no userrep tables at the root, or the configuration is not valid. Tables in a catalog are checked
        at their first use.
    """
    embeddings = Embeddings(load_target(target), spark)
    embeddings.tables.check_before_spark()
    return embeddings


class Embeddings:
    """The embeddings of one installation, as returned by ``userrep.open``.

    A space is named by its id, or ``serving`` for the one that serves now.
    """

    def __init__(self, target: str | Config, spark: SparkSession | None = None) -> None:
        """``target`` is that of ``load_target``."""
        self._target, self._spark = target, spark
        self.tables = tables_at(target, spark)

    def join(self, labels: Labels, *, space: str = "serving", **options: Unpack[JoinParams]) -> Labels:
        """Join labels with the embeddings known at each label's time.

        Parameters
        ----------
        labels : a Spark or pandas DataFrame with any columns, including ``user_id`` (string) and ``label_at``
            (timestamp; times without a zone are UTC, and a date is its 00:00 UTC). User ids that are whole numbers are
            cast to string, with a warning.
        options : Params of ``EmbeddingJoin``, such as ``userCol``, ``timeCol``, ``outputCol``, ``maxAgeDays``. Here,
            ``handleInvalid`` is "keep" by default, and ``vectors`` is "array".

        Returns
        -------
        A frame of the same kind: the labels with ``snapshot_id``, ``as_of``, ``embedding`` (in pandas, a float32 array
        per row) and ``embedding_status``: where the vector comes from, or the reason for a null. Spark frames are
        lazy. Pandas labels keep their order and index; below a root of files they need no Spark.

        Raises
        ------
        UsageError
            With all faults of labels and options, or if the space is unknown, retired or has no snapshot.
        UserrepError
            If a pandas label has no vector and ``handleInvalid`` is "error".
        """
        chosen = JoinOptions.of_params({**options})
        if isinstance(labels, pd.DataFrame):
            sources = usable_sources(self.tables, space)
            return join_frame(labels, tables=self.tables, sources=sources, options=chosen)  # type: ignore[no-any-return]
        tables, rows = self._with_spark(labels)
        from userrep.joins.join import join_embeddings

        return join_embeddings(rows, tables=tables, space=space, options=chosen)  # type: ignore[return-value]

    def training_set(
        self,
        name: str,
        labels: Labels,
        consumer: str | None = None,
        *,
        space: str | None = None,
        **options: Unpack[JoinParams],
    ) -> Labels:
        """Join labels as ``join`` does, and record the join as a training set, whose snapshots retention keeps.

        Parameters
        ----------
        consumer : a registered consumer; the registry then names the training set.
        space : by default the space that the consumer uses, or the serving space without a consumer.

        Returns
        -------
        The frame that ``join`` returns. The id of the training set is under ``userrep_training_set_id``: in Spark in
        the metadata of the vector column, in pandas in ``attrs``.

        Raises
        ------
        UsageError
            As ``join``, or if no label has a snapshot, the consumer is not registered, or the table ``training_sets``
            (with ``consumer``, also ``registry``) is not writable.
        """
        self._check_writable(TRAINING_SETS, *([REGISTRY] if consumer else []))
        chosen = JoinOptions.of_params({**options})
        if isinstance(labels, pd.DataFrame):
            keys = label_keys(labels, chosen)
            joined, set_id = create_training_table(
                keys, tables=self.tables, name=name, space=space, consumer=consumer, options=chosen
            )
            output = with_added(labels, joined, chosen)
            output.attrs[TRAINING_SET_ID] = set_id
            return output  # type: ignore[no-any-return]
        tables, rows = self._with_spark(labels)
        return create_training_set(  # type: ignore[return-value]
            rows, tables=tables, name=name, space=space, consumer=consumer, options=chosen
        )

    def write_training_set(
        self,
        name: str,
        labels: DataFrame | pd.DataFrame,
        out: str | os.PathLike[str],
        consumer: str | None = None,
        *,
        space: str | None = None,
        **options: Unpack[JoinParams],
    ) -> dict[str, Any]:
        """Join and record labels as ``training_set`` does, and write the rows to a folder of Parquet files.

        Below a root, Spark's tasks look up the vectors and write them, which is faster than to write the frame of
        ``training_set``. ``userrep forget`` also erases users in the folder.

        Parameters
        ----------
        labels : a Spark or pandas DataFrame, as for ``join``.
        out : path or URI of the folder, which all workers can reach: a new or empty one, or that of an earlier export,
            which is replaced.
        consumer, space, options : as for ``training_set``.

        Returns
        -------
        The manifest of the folder, such as its ``training_set_id``, ``space_id``, ``num_rows`` and ``columns``. The
        files have the columns that ``join`` returns, in no particular order of rows.

        Raises
        ------
        UsageError
            As ``training_set``, or if the folder has other contents or the files of ``labels``, or cannot be recorded.
        AlreadyRunningError
            If another process writes to the folder or erases users there.
        """
        from userrep.joins.training_files import write_training_set  # imports Spark

        self._check_writable(TRAINING_SETS, *([REGISTRY] if consumer else []))
        if not isinstance(out, str | os.PathLike):
            raise UsageError(f"out: expected a path or URI of a folder, got {type(out).__name__}.")
        chosen = JoinOptions.of_params({**options})
        is_pandas = isinstance(labels, pd.DataFrame)
        tables, rows = (self.tables, label_table(labels, chosen)) if is_pandas else self._with_spark(labels)
        return write_training_set(
            rows, os.path.expanduser(os.fspath(out)), tables=tables, name=name, space=space, consumer=consumer,
            options=chosen,
        )  # fmt: skip

    def latest(self, space: str = "serving") -> DataFrame | pa.Table:
        """Return the newest snapshot: one row per user with user_id, snapshot_id, as_of and embedding.

        Returns
        -------
        A Spark DataFrame if ``userrep.open`` was given a session, otherwise a pyarrow Table with all vectors in memory.
        """
        if self._spark is None:
            return newest_table(self.tables, space)
        return newest_frame(self.tables, space)

    def lookup(self, user_ids: Sequence[str] | pd.Series[str], space: str = "serving") -> pd.DataFrame:
        """Return the vectors of some users in the newest snapshot: one row per id, in order, null for unknown users.

        Returns
        -------
        A pandas DataFrame with user_id, snapshot_id, as_of, embedding (a float32 array) and embedding_status.
        """
        if isinstance(user_ids, str | bytes | pd.DataFrame) or not isinstance(user_ids, Iterable):
            raise UsageError(f"user_ids: expected a list or a Series of ids, got {type(user_ids).__name__}.")
        ids = user_ids if isinstance(user_ids, pd.Series) else list(user_ids)
        labels = pd.DataFrame({"user_id": pd.Series(ids, dtype=None if len(ids) else "object")})
        sources = usable_sources(self.tables, space)
        newest = sources.newest
        # before the next as-of date, whose snapshot may not be available yet
        labels["label_at"] = datetime.combine(newest.as_of, time(12))
        sources, options = replace(sources, snapshots=[newest]), JoinOptions(availability="as_of")
        return join_frame(labels, tables=self.tables, sources=sources, options=options).drop(columns="label_at")

    def audience(
        self,
        seeds: Listed,
        size: int,
        *,
        exclude: Listed | None = None,
        as_of: date | None = None,
        space: str = "serving",
    ) -> Audience:
        """Find the ``size`` users of a snapshot who resemble the seeds most, as ``userrep audience`` does.

        Parameters
        ----------
        seeds, exclude : user ids, or the path of a file of ids or of the folder of an export or audience. None of these
            users is in the audience.
        as_of : date of the snapshot, by default the newest.

        Returns
        -------
        ``users``, a pyarrow Table with user_id, score, rank, as_of and space_id, best first; ``facts``, the manifest's
        entries; ``write(out)`` writes a folder that ``userrep forget`` reaches. Below a root it needs no Spark.

        Raises
        ------
        UsageError
            If the embeddings were opened without a configuration, or as ``build_audience``.
        """
        from userrep.audiences.audience import build_audience  # imports scikit-learn, which takes a second

        if not isinstance(self._target, Config):
            raise UsageError(
                "audience: the protected attributes are not known, because this root was opened by its path. Open it "
                "with its configuration: userrep.open('userrep.yaml')."
            )
        if as_of is not None and type(as_of) is not date:
            raise UsageError(f"as_of: must be a datetime.date, got {as_of!r}. Use date.fromisoformat() or .date().")
        left_out = None if exclude is None else listed_ids(exclude, "exclude").user_ids
        return build_audience(
            self.tables, self._target.users, listed_ids(seeds, "seeds"), size, exclude=left_out, as_of=as_of,
            space=space,
        )  # fmt: skip

    def spaces(self) -> list[Space]:
        """Return all spaces, oldest first."""
        return list_spaces(self.tables)

    def snapshots(self, space: str = "serving") -> list[Snapshot]:
        """Return a space's published snapshots, ordered by as-of date and revision."""
        return list_snapshots(self.tables, find_space(self.tables, space).space_id)

    def register_consumer(self, name: str, *, owner: str, pin: str | None = None) -> None:
        """Register a consumer, which follows the serving space unless it is pinned to a space. Safe to repeat.

        Raises
        ------
        UsageError
            If the name is registered with another owner or pin, the space is unknown, a candidate or retired, or the
            table ``registry`` is not writable.
        """
        self._check_writable(REGISTRY)
        consumers.register_consumer(self.tables, name, owner=owner, pin=pin)

    def ready(self, name: str, space_id: str) -> None:
        """Declare that a consumer has trained its model on a space and can move to it.

        Raises
        ------
        UsageError
            If the consumer or the space is unknown, the space is a candidate or retired, or the table ``registry`` is
            not writable.
        """
        self._check_writable(REGISTRY)
        consumers.declare_ready(self.tables, name, space_id)

    def _check_writable(self, *tables: TableSchema) -> None:
        for table in tables:
            if isinstance(self.tables, FileTables):
                check_writable(self.tables.uri(table))

    def _with_spark(self, labels: Any) -> tuple[Tables, DataFrame]:
        """Return the tables for the labels' session, and the labels."""
        spark = sys.modules.get("pyspark.sql")  # without this module, there are no Spark DataFrames
        if spark is None or not isinstance(labels, spark.DataFrame):
            kind = f"{type(labels).__module__.partition('.')[0]} {type(labels).__name__}"
            raise UsageError(f"labels: expected a Spark or pandas DataFrame, got a {kind}.")
        return self.tables if self._spark is not None else tables_at(self._target, labels.sparkSession), labels

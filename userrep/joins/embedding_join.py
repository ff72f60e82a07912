"""The join as a Spark ML stage: it gives a model its vectors, and keeps the space that the model was trained on."""

from collections.abc import Callable
from typing import Any

from pyspark.ml import Transformer
from pyspark.ml.functions import vector_to_array
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.joins.outputs import MAPPED_FROM, SPACE_ID, as_vectors
from userrep.joins.resolution import column
from userrep.spaces.registry import SERVING, find_space
from userrep.store.places import open_root, schema_name
from userrep.store.spark_tables import SparkTables
from userrep.store.storage import absolute
from userrep.store.tables import Tables


class EmbeddingJoin(
    Transformer, HasInputCol, HasOutputCol, DefaultParamsReadable["EmbeddingJoin"], DefaultParamsWritable
):
    """Join labels with embeddings as they were known at each label's time; see ``join_embeddings``.

    The space is resolved when the stage is first used, and remembered in ``spaceId``: in this object, in its copies
    (those of CrossValidator, say) and in what is saved. So a fitted pipeline stays on the space that its model was
    trained on, whatever is promoted later; ``setSpace`` makes it choose anew, before it is fitted again.

    Rows that have the output column already, from ``join_embeddings`` or a training set, pass through if their vectors
    are of the same space, and are refused otherwise: by the column's metadata, and where there is a snapshot_id, row
    by row. A stage that has no space yet takes theirs.

    Params
    ------
    inputCol, timeCol, outputCol : columns of users (string), of times (timestamp, UTC), of vectors.
    space : an id, or ``serving``. spaceId : what it was resolved to; set by use. mappedFrom : a newer space, whose
        vectors are read in this stage's space's place, mapped into its coordinates: a fitted model goes on after its
        space has been retired. ``stage.setMappedFrom("NEW")`` on a fitted or loaded pipeline's stage.
    root : path or URI that the tables are below; or schema : ``catalog.schema``.
    availability, maxAgeDays (unset: no limit), missing, updates, vectors, inSample : as in ``JoinOptions``.
    """

    timeCol: Param[str] = Param(Params._dummy(), "timeCol", "column of times", TypeConverters.toString)
    space: Param[str] = Param(Params._dummy(), "space", "a space's id, or serving", TypeConverters.toString)
    spaceId: Param[str] = Param(Params._dummy(), "spaceId", "the space that is used", TypeConverters.toString)
    mappedFrom: Param[str] = Param(Params._dummy(), "mappedFrom", "a newer space to read", TypeConverters.toString)
    root: Param[str] = Param(Params._dummy(), "root", "where tables are", TypeConverters.toString)
    schema: Param[str] = Param(Params._dummy(), "schema", "catalog.schema of the tables", TypeConverters.toString)
    availability: Param[str] = Param(Params._dummy(), "availability", "ledger or as_of", TypeConverters.toString)
    maxAgeDays: Param[int] = Param(Params._dummy(), "maxAgeDays", "of as-of dates, in days", TypeConverters.toInt)
    missing: Param[str] = Param(Params._dummy(), "missing", "null, new_user or drop", TypeConverters.toString)
    updates: Param[bool] = Param(Params._dummy(), "updates", "near-real-time vectors too", TypeConverters.toBoolean)
    vectors: Param[str] = Param(Params._dummy(), "vectors", "array or vector", TypeConverters.toString)
    inSample: Param[str] = Param(Params._dummy(), "inSample", "warn or refuse", TypeConverters.toString)

    def __init__(
        self,
        *,
        inputCol: str = "user_id",
        timeCol: str = "label_at",
        outputCol: str = "embedding",
        space: str = SERVING,
        root: str | None = None,
        schema: str | None = None,
        availability: str = "ledger",
        maxAgeDays: int | None = None,
        missing: str = "null",
        updates: bool = False,
        vectors: str = "array",
        inSample: str = "warn",
    ) -> None:
        super().__init__()
        self._resolved: dict[str, str] = {}  # shared with copies, so that all of them use one space
        self._setDefault(
            inputCol="user_id", timeCol="label_at", outputCol="embedding", space=SERVING, availability="ledger",
            missing="null", updates=False, vectors="array", inSample="warn",
        )  # fmt: skip
        given = {
            "inputCol": inputCol, "timeCol": timeCol, "outputCol": outputCol, "space": space, "schema": schema,
            "root": None if root is None else absolute(root), "availability": availability, "maxAgeDays": maxAgeDays,
            "missing": missing, "updates": updates, "vectors": vectors, "inSample": inSample,
        }  # fmt: skip
        self._set(**{name: value for name, value in given.items() if value is not None})

    def setSpace(self, value: str) -> "EmbeddingJoin":
        """Choose another space; what ``serving`` was resolved to is forgotten."""
        self.clear(self.spaceId)
        self._resolved = {}
        return self._set(space=value)

    def setMappedFrom(self, value: str) -> "EmbeddingJoin":
        """Read a newer space's vectors in this stage's space's coordinates; the space that it was fitted on stays."""
        return self._set(mappedFrom=value)

    def options(self) -> JoinOptions:
        """Return the Params as ``join_embeddings`` takes them. Raises UsageError if one has no such value."""
        values: dict[str, Any] = {
            "user": self.getInputCol(), "time": self.getOrDefault(self.timeCol), "output": self.getOutputCol(),
            "max_age_days": self.getOrDefault(self.maxAgeDays) if self.isDefined(self.maxAgeDays) else None,
            "in_sample": self.getOrDefault(self.inSample),
        }  # fmt: skip
        same = ("availability", "missing", "updates", "vectors")
        return JoinOptions(**values, **{name: self.getOrDefault(name) for name in same})

    def _transform(self, dataset: DataFrame) -> DataFrame:
        options = self.options()
        if options.output in dataset.columns:
            return self._passed(dataset, options)
        tables = self._tables(dataset)
        space_id = self._pinned(lambda: find_space(tables, None).space_id)
        if not self.isSet(self.mappedFrom):
            return join_embeddings(dataset, tables=tables, space=space_id, options=options)
        newer = self.getOrDefault(self.mappedFrom)
        return join_embeddings(dataset, tables=tables, space=newer, coordinates=space_id, options=options)

    def _passed(self, dataset: DataFrame, options: JoinOptions) -> DataFrame:
        """Let rows through whose vectors are of this stage's space."""
        name, field = options.output, dataset.schema[options.output]
        metadata = field.metadata or {}
        found = metadata.get(SPACE_ID)
        if found is None:
            raise UsageError(
                f"column {name!r} is there already, and nothing says of which space its vectors are: drop or rename "
                "it, or have it from join_embeddings or a training set."
            )
        mine = self._pinned(lambda: found)
        if found != mine:
            raise UsageError(
                f"column {name!r} holds vectors of space {found}; this stage, and what was trained with it, is for "
                f"space {mine}: join the labels with {mine}, or train a new pipeline on {found}."
            )
        if "snapshot_id" in dataset.columns:
            dataset = dataset.where(_all_of_space(metadata.get(MAPPED_FROM, mine), name))
        is_array = field.dataType.typeName() == "array"
        if is_array == (options.vectors == "array"):
            return dataset
        vector = column(name) if is_array else vector_to_array(column(name), "float32")
        return dataset.withColumn(name, as_vectors(vector, options, metadata))

    def _pinned(self, first: Callable[[], str]) -> str:
        """Return the space that this stage and its copies are for; ``first`` says it on first use."""
        chosen = self.getOrDefault(self.space)
        if chosen == SERVING:
            if self.isSet(self.spaceId):
                return self.getOrDefault(self.spaceId)
            if chosen not in self._resolved:
                self._resolved.setdefault(chosen, first())
            chosen = self._resolved[chosen]
        self._set(spaceId=chosen)
        return chosen

    def _tables(self, dataset: DataFrame) -> Tables:
        if self.isSet(self.schema) and not self.isSet(self.root):
            catalog, _, schema = self.getOrDefault(self.schema).partition(".")
            name = schema_name(checked_name(catalog, "catalog"), checked_name(schema, "schema"))
            return SparkTables(dataset.sparkSession, schema=name, expected=True)
        if self.isSet(self.root) and not self.isSet(self.schema):
            return open_root(self.getOrDefault(self.root), dataset.sparkSession, expected=True)
        raise UsageError("EmbeddingJoin: say where the tables are: root, a path or URI, or schema, catalog.schema.")


def _all_of_space(space_id: str, name: str) -> Column:
    """Let a row fail the job whose snapshot is of another space: frames of two spaces have been put together."""
    other = F.regexp_extract("snapshot_id", r"^(.*)-\d{8}-r\d+$", 1)
    fault = F.concat(
        F.lit(f"column {name!r} holds vectors of space {space_id} and of space "),
        other,
        F.lit(f": two spaces never meet. Join the labels with {space_id} alone."),
    )
    return F.when(F.coalesce(other == space_id, F.lit(True)), F.lit(True)).otherwise(
        F.raise_error(fault).cast("boolean")
    )

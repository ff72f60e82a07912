"""The point-in-time join as a Spark ML stage, which stays on the space that its pipeline was trained on."""

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.functions import vector_to_array
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions, column, param_of
from userrep.joins.outputs import as_vectors, by_rule
from userrep.joins.statuses import MAPPED_FROM, SPACE_ID
from userrep.spaces.registry import SERVING, find_space
from userrep.store.filesystem import absolute
from userrep.store.open import open_root, open_schema
from userrep.store.tables import Tables


class EmbeddingJoin(Transformer, HasOutputCol, DefaultParamsReadable["EmbeddingJoin"], DefaultParamsWritable):
    """Join labels with the embeddings known at each label's time, as a stage of a Spark ML pipeline.

        Pipeline(stages=[EmbeddingJoin(root="build/demo"), LogisticRegression(featuresCol="embedding")])

    works as it stands: by default, vectors are of Spark ML's type, and labels without a vector are left out, both in
    training and in scoring, because estimators refuse nulls. Set ``missing="new_user"`` to score unknown users, too.

    The space is resolved on first use and stored in ``spaceId``: in this object, in its copies (such as those that
    CrossValidator makes) and in a saved pipeline. A fitted pipeline therefore stays on the space that its model was
    trained on, whatever is promoted later. Call ``setSpace`` before fitting again to choose another space.

    If the input already has the output column, from ``join_embeddings`` or a training set, the rows pass through,
    provided that their vectors are of this stage's space; other vectors raise an error. The check uses the column's
    metadata, and the snapshot_id of each row if there is one. A stage without a resolved space takes that of the input.

    Params
    ------
    userCol, timeCol, outputCol : columns of user ids (string), of label times (timestamp), and of vectors. Whole
        numbers, dates and times without a zone are cast, with a warning.
    space : a space id, or ``serving``.
    spaceId : the resolved space id, set on first use.
    mappedFrom : a newer space whose vectors are read instead and mapped into this stage's space, so that a fitted model
        can be used after its space was retired. Set it with ``setMappedFrom`` on the stage of the loaded pipeline.
    root : path or URI of the tables' root, unless ``schema`` is set.
    schema : ``catalog.schema`` of the tables, unless ``root`` is set.
    handleInvalid : rule for labels without a vector, such as those of unknown users, or from before the first snapshot:
        ``skip`` (default) leaves them out, ``error`` fails the job, ``keep`` keeps them with a null. Their
        ``embedding_status`` has the reason.
    missing : ``new_user`` gives users that are not in the snapshot the encoder's vector of a user without any data.
        ``null`` and ``drop`` are earlier names of ``handleInvalid="keep"`` and ``"skip"``.
    vectors : ``vector`` (default) for Spark ML's VectorUDT, ``array`` for array<float>.
    availability : ``ledger`` uses the newest snapshot whose ``available_at`` is at or before the label's time.
        ``as_of`` uses the newest as-of date at or before it, although it may not have been published yet.
    maxAgeDays : maximum age of a vector at the label's time, in days. Unset for no limit.
    updates : also use near-real-time vectors.
    inSample : ``warn`` about labels from before the space's ``trained_until``, or ``refuse`` them.
    """

    userCol: Param[str] = Param(Params._dummy(), "userCol", "column of user ids", TypeConverters.toString)
    timeCol: Param[str] = Param(Params._dummy(), "timeCol", "column of label times", TypeConverters.toString)
    space: Param[str] = Param(Params._dummy(), "space", "space id, or serving", TypeConverters.toString)
    spaceId: Param[str] = Param(Params._dummy(), "spaceId", "resolved space id", TypeConverters.toString)
    mappedFrom: Param[str] = Param(Params._dummy(), "mappedFrom", "newer space to read from", TypeConverters.toString)
    root: Param[str] = Param(Params._dummy(), "root", "root of the tables", TypeConverters.toString)
    schema: Param[str] = Param(Params._dummy(), "schema", "catalog.schema of the tables", TypeConverters.toString)
    availability: Param[str] = Param(Params._dummy(), "availability", "ledger or as_of", TypeConverters.toString)
    maxAgeDays: Param[int] = Param(Params._dummy(), "maxAgeDays", "maximum vector age in days", TypeConverters.toInt)
    handleInvalid: Param[str] = Param(Params._dummy(), "handleInvalid", "error, skip, keep", TypeConverters.toString)
    missing: Param[str] = Param(Params._dummy(), "missing", "null, new_user or drop", TypeConverters.toString)
    updates: Param[bool] = Param(Params._dummy(), "updates", "use near-real-time vectors", TypeConverters.toBoolean)
    vectors: Param[str] = Param(Params._dummy(), "vectors", "array or vector", TypeConverters.toString)
    inSample: Param[str] = Param(Params._dummy(), "inSample", "warn or refuse", TypeConverters.toString)

    _input_kwargs: dict[str, Any]  # set by keyword_only

    @keyword_only
    def __init__(
        self,
        *,
        userCol: str = "user_id",
        timeCol: str = "label_at",
        outputCol: str = "embedding",
        space: str = SERVING,
        root: str | None = None,
        schema: str | None = None,
        availability: str = "ledger",
        maxAgeDays: int | None = None,
        handleInvalid: str | None = None,
        missing: str | None = None,
        updates: bool = False,
        vectors: str = "vector",
        inSample: str = "warn",
        inputCol: str | None = None,
    ) -> None:
        """``inputCol`` is an earlier name of ``userCol``."""
        super().__init__()
        self._resolved: dict[str, str] = {}  # shared with copies, so that all of them use the same space
        self._setDefault(
            userCol="user_id", timeCol="label_at", outputCol="embedding", space=SERVING, availability="ledger",
            handleInvalid="skip", missing="null", updates=False, vectors="vector", inSample="warn",
        )  # fmt: skip
        given = {name: value for name, value in self._input_kwargs.items() if value is not None}
        if "inputCol" in given:
            given["userCol"] = given.pop("inputCol")
        if missing == "null":
            given.setdefault("handleInvalid", "keep")
        if root is not None:
            given["root"] = absolute(os.path.expanduser(root))
        self._set(**given)

    def setSpace(self, value: str) -> "EmbeddingJoin":
        """Choose another space, and forget the space that ``serving`` was resolved to."""
        self.clear(self.spaceId)
        self._resolved = {}
        return self._set(space=value)

    def setMappedFrom(self, value: str) -> "EmbeddingJoin":
        """Read a newer space's vectors, mapped into the coordinates of this stage's space."""
        return self._set(mappedFrom=value)

    def options(self) -> JoinOptions:
        """Return the Params as ``JoinOptions``. Raises UsageError if a value is not allowed."""
        names = (param_of(field.name) for field in fields(JoinOptions))
        return JoinOptions.of_params({name: self.getOrDefault(name) for name in names if self.isDefined(name)})

    def _transform(self, dataset: DataFrame) -> DataFrame:
        if not isinstance(dataset, DataFrame):
            raise UsageError("labels: expected a Spark DataFrame. For pandas, use userrep.open(ROOT).join(labels).")
        options = self.options()
        if options.output in dataset.columns:
            return self._pass_through(dataset, options)
        tables = self._tables(dataset)
        space_id = self._pinned(lambda: find_space(tables, None).space_id)
        source = self.getOrDefault(self.mappedFrom) if self.isSet(self.mappedFrom) else space_id
        return join_embeddings(dataset, tables=tables, space=source, coordinates=space_id, options=options)

    def _pass_through(self, dataset: DataFrame, options: JoinOptions) -> DataFrame:
        """Return rows that have vectors already, after checking that these are of this stage's space."""
        name, field = options.output, dataset.schema[options.output]
        metadata = field.metadata or {}
        input_space_id = metadata.get(SPACE_ID)
        if input_space_id is None:
            raise UsageError(
                f"column {name!r} already exists, and its metadata names no space. "
                "Drop or rename it, or create it with `userrep.open(ROOT).join` or `.training_set`."
            )
        space_id = self._pinned(lambda: input_space_id)
        if input_space_id != space_id:
            raise UsageError(
                f"column {name!r} has vectors of space {input_space_id}, but this stage and the model trained with it "
                f"use space {space_id}. Join the labels with {space_id}, or train a new pipeline on {input_space_id}."
            )
        if "snapshot_id" in dataset.columns:
            dataset = dataset.where(_is_of_space(metadata.get(MAPPED_FROM, space_id), name))
        dataset = by_rule(dataset, options)
        is_array = field.dataType.typeName() == "array"
        if is_array == (options.vectors == "array"):
            return dataset
        given = column(name)  # Spark's conversion fails on null
        vector = given if is_array else F.when(given.isNotNull(), vector_to_array(given, "float32"))
        return dataset.withColumn(name, as_vectors(vector, options, metadata))

    def _pinned(self, resolve: Callable[[], str]) -> str:
        """Return the space id of this stage and its copies. ``resolve`` is called once, if the space is ``serving``."""
        space_id = self.getOrDefault(self.space)
        if space_id == SERVING:
            if self.isSet(self.spaceId):
                return self.getOrDefault(self.spaceId)
            space_id = self._resolved.get(SERVING) or self._resolved.setdefault(SERVING, resolve())
        self._set(spaceId=space_id)
        return space_id

    def _tables(self, dataset: DataFrame) -> Tables:
        if self.isSet(self.schema) and not self.isSet(self.root):
            return open_schema(self.getOrDefault(self.schema), dataset.sparkSession, expected=True)
        if self.isSet(self.root) and not self.isSet(self.schema):
            return open_root(self.getOrDefault(self.root), dataset.sparkSession, expected=True)
        fault = "both root and schema are" if self.isSet(self.root) else "the location of the tables is not"
        raise UsageError(f"EmbeddingJoin: {fault} set. Set either root (a path or URI) or schema (catalog.schema).")


def _is_of_space(space_id: str, name: str) -> Column:
    """Return true for rows of this space; fail the job on a row of another space, which a union has mixed in."""
    row_space_id = F.regexp_extract("snapshot_id", r"^(.*)-\d{8}-r\d+$", 1)
    fault = F.concat(
        F.lit(f"column {name!r} has vectors of space {space_id} and of space "),
        row_space_id,
        F.lit(f". Vectors of two spaces cannot be mixed. Join the labels with {space_id} only."),
    )
    is_of_space = F.coalesce(row_space_id == space_id, F.lit(True))
    return F.when(is_of_space, F.lit(True)).otherwise(F.raise_error(fault).cast("boolean"))

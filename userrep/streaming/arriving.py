"""Rows as they arrive: of the log, of onboarding picks and of users; from Kafka, from files or from a Delta table."""

from datetime import date
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config, Kafka, Source, Stream, StreamSource
from userrep.config.variables import with_variables
from userrep.errors import UsageError, UserrepError, in_one_line
from userrep.sources.source import CORRUPT, read_source
from userrep.store.storage import exists
from userrep.utc import DAY_US, day_number

ARRIVED, PLACE = "__arrived_at", "__place"  # beside the owner's columns: when a row came, and where it is
_PATIENCE = {  # of the first look at a broker: it answers, or the user waits for nothing
    "kafka.request.timeout.ms": "5000",
    "kafka.default.api.timeout.ms": "10000",
    "kafka.max.block.ms": "10000",
    "fetchOffset.numRetries": "1",
}


def sources_of(config: Config) -> dict[str, StreamSource]:
    """Return what is streamed, by what it brings; without ``stream.events``, the log's own files."""
    stream, log = config.streaming, config.events
    if log.sources:
        raise UsageError("stream: a log of several sources cannot be streamed yet.")
    if stream.events is None and log.format == "table":
        raise UsageError("stream.events: the log is a table by name; say where its rows arrive, a topic or a path.")
    own = {} if stream.events is not None else {"events": StreamSource(path=log.path, format=log.format)}
    return own | stream.sources


def schemas_of(spark: SparkSession, config: Config) -> dict[str, str]:
    """Return, as JSON, the columns that the rows of each source have: those of the batch's source of the same name.

    A stream keeps the columns that it was begun with: what its state holds is made of them.
    """
    schemas = {}
    for what, source in sources_of(config).items():
        schema = read_source(spark, batch_source(config, what), what=what).schema
        if CORRUPT not in schema.names and (source.topic is not None or source.format == "json"):
            schema = schema.add(CORRUPT, T.StringType())
        schemas[what] = schema.json()
    return schemas


def arriving(
    spark: SparkSession, source: StreamSource, stream: Stream, *, schema: T.StructType, since: date
) -> DataFrame:
    """Read a source as a stream: the columns of ``schema``, and ARRIVED and PLACE.

    Kafka's values are JSON, read by these types; one that cannot be read so is kept as text in CORRUPT. Other columns
    are passed over. ``since``: UTC day from a day before whose beginning on messages are read, by their time in Kafka;
    of files and Delta tables all that is there is read.
    """
    if source.topic is not None:
        assert stream.kafka is not None
        start = str((day_number(since) - 1) * DAY_US // 1000)  # events may be ahead of the clock that Kafka has
        options = kafka_options(stream.kafka) | {
            "subscribe": source.topic,
            "startingTimestamp": start,
            "startingOffsetsByTimestampStrategy": "latest",
            "maxOffsetsPerTrigger": str(stream.max_rows_per_batch),
            "failOnDataLoss": "true",
        }
        return _of_messages(spark.readStream.format("kafka").options(**options).load(), schema)
    reader = spark.readStream.option("maxFilesPerTrigger", stream.max_files_per_batch)
    if source.format == "delta":
        rows = reader.format("delta").option("skipChangeCommits", True).load(source.path)
        place: Any = F.lit(source.path)
    else:
        if source.format == "csv":
            reader = reader.option("header", True).option("mode", "PERMISSIVE").option("enforceSchema", False)
        if source.format == "json":
            reader = reader.option("primitivesAsString", True).option("columnNameOfCorruptRecord", CORRUPT)
        rows = reader.schema(schema).format(source.format).load(source.path)
        place = F.col("_metadata.file_path")
    return rows.withColumns({PLACE: place, ARRIVED: F.current_timestamp()})


def _of_messages(messages: DataFrame, schema: T.StructType) -> DataFrame:
    text = F.col("value").cast("string")
    parsed = F.from_json(text, schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": CORRUPT})
    place = F.concat_ws("/", "topic", "partition", "offset")
    rows = messages.select(
        parsed.alias("row"), text.alias("text"), F.col("timestamp").alias(ARRIVED), place.alias(PLACE)
    )
    columns = [F.col(f"row.`{name}`").alias(name) for name in schema.names if name != CORRUPT]
    corrupt = F.coalesce(F.col(f"row.{CORRUPT}"), F.when(F.col("row").isNull(), F.coalesce("text", F.lit(""))))
    return rows.select(*columns, corrupt.alias(CORRUPT), ARRIVED, PLACE)


def batch_source(config: Config, what: str) -> Source:
    """Return the batch's source of a name."""
    if what == "events":
        return config.events.all_sources["events"]
    found: Source | None = getattr(config, what)
    assert found is not None, what
    return found


def kafka_options(kafka: Kafka) -> dict[str, str]:
    """Return the options of Spark's source; secrets are put in here, last."""
    options = {
        f"kafka.{name}": with_variables(value, f"stream.kafka.options.{name}")[0]
        for name, value in kafka.options.items()
    }
    return {"kafka.bootstrap.servers": kafka.bootstrap_servers} | options


def check_arriving(spark: SparkSession, config: Config) -> None:
    """Look at all sources before any work: does the broker answer, are the topics and paths there?

    Raises
    ------
    UsageError
        If a topic or a path is not there.
    UserrepError
        If the broker does not answer.
    """
    stream = config.streaming
    for what, source in sources_of(config).items():
        if source.topic is None:
            assert source.path is not None
            if "*" not in source.path and not exists(source.path):
                raise UsageError(f"stream.{what}.path {source.path}: not there; make the folder that rows arrive in.")
            continue
        assert stream.kafka is not None
        options = kafka_options(stream.kafka) | _PATIENCE | {"subscribe": source.topic, "startingOffsets": "earliest"}
        try:
            spark.read.format("kafka").options(**options).load().isEmpty()
        except (PySparkException, Py4JJavaError) as error:
            said = in_one_line(error)
            if "UnknownTopicOrPartition" in str(error) or "does not host" in str(error):
                raise UsageError(
                    f"stream.{what}.topic {source.topic}: no such topic at {stream.kafka.bootstrap_servers}."
                ) from None
            raise UserrepError(
                f"stream: no answer from Kafka at {stream.kafka.bootstrap_servers} ({said[:200]}). Is the broker up, "
                "and kafka.bootstrap_servers right?"
            ) from None

"""Streaming sources of events, onboarding picks and users: Kafka topics, folders of files and Delta tables."""

import re
from datetime import date

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config, Kafka, Source, Stream, StreamSource
from userrep.config.environment import with_variables
from userrep.errors import UsageError, UserrepError, in_one_line
from userrep.sources.listing import base_folder, is_pattern
from userrep.sources.read import CORRUPT, TEXT_OPTIONS, read_source
from userrep.store.filesystem import exists
from userrep.store.sql import sql_name
from userrep.utc import DAY_US, day_number

ARRIVED, ORIGIN = "__arrived_at", "__origin"  # added to the owner's columns: arrival time and origin of a row
_READ_OPTIONS = TEXT_OPTIONS | {"delta": {"skipChangeCommits": True}}
_OTHER_TYPE = re.compile(
    r"reading file (\S+)\. Data type mismatches when reading Parquet column \[([^]]*)\]\. "
    r"Expected Spark type (\S+), actual Parquet type (\w+)"
)
_CHECK_TIMEOUTS = {  # short ones for the first request, so that a broker that is down is reported at once
    "kafka.request.timeout.ms": "5000",
    "kafka.default.api.timeout.ms": "10000",
    "kafka.max.block.ms": "10000",
    "fetchOffset.numRetries": "1",
}


def stream_sources(config: Config) -> dict[str, StreamSource]:
    """Return the sources by name: events, onboarding, users. Without ``stream.events``, events are the log's files.

    Raises UsageError if the log has several sources, or is a table by name and ``stream.events`` is not set.
    """
    stream, log = config.streaming, config.events
    if log.sources:
        raise UsageError("stream: a log of several sources cannot be streamed. Use a log of one source.")
    if stream.events is None and log.format == "table":
        raise UsageError("stream.events: missing, but the log is a table by name. Set the topic or path of new rows.")
    log_files = {} if stream.events is not None else {"events": StreamSource(path=log.path, format=log.format)}
    return log_files | stream.sources


def schemas_of(spark: SparkSession, config: Config) -> dict[str, str]:
    """Return the schema of each source as JSON: that of the batch source of the same name.

    A stream keeps the schemas that it was started with, because its state depends on them.
    """
    schemas = {}
    for name, source in stream_sources(config).items():
        schema = read_source(spark, batch_source(config, name), what=name).schema
        if CORRUPT not in schema.names and (source.topic is not None or source.format == "json"):
            schema = schema.add(CORRUPT, T.StringType())
        schemas[name] = schema.json()
    return schemas


def arriving(
    spark: SparkSession, source: StreamSource, stream: Stream, *, schema: T.StructType, since: date
) -> DataFrame:
    """Read a source as a stream with the columns of ``schema``, ARRIVED (UTC) and ORIGIN. Other columns are ignored.

    Kafka values are JSON; a value that cannot be parsed with ``schema`` is kept as text in CORRUPT. On its first start,
    a stream reads Kafka messages with timestamps from one day before ``since`` (UTC), but all existing files or all
    rows of a Delta table.
    """
    if source.topic is not None:
        assert stream.kafka is not None
        start = str((day_number(since) - 1) * DAY_US // 1000)  # event times may be ahead of Kafka's clock
        options = kafka_options(stream.kafka) | {
            "subscribe": source.topic,
            "startingTimestamp": start,
            "startingOffsetsByTimestampStrategy": "latest",
            "maxOffsetsPerTrigger": str(stream.max_rows_per_batch),
            "failOnDataLoss": "true",
        }
        return _parsed_messages(spark.readStream.format("kafka").options(**options).load(), schema)
    reader = spark.readStream.format(source.format).option("maxFilesPerTrigger", stream.max_files_per_batch)
    reader = reader.options(**_READ_OPTIONS.get(source.format, {}))
    if source.path is not None and is_pattern(source.path):  # of folders that may be partitions
        reader = reader.option("basePath", base_folder(source.path))
    is_delta = source.format == "delta"
    rows = (reader if is_delta else reader.schema(schema)).load(source.path)
    if is_delta:  # whose reader takes no schema; the records in the state have the columns of the first start
        rows = rows.select(*(_of_type(rows, field) for field in schema))
    origin = F.lit(source.path) if is_delta else F.col("_metadata.file_path")
    return rows.withColumns({ORIGIN: origin, ARRIVED: F.current_timestamp()})


def other_type_of_file(error: BaseException) -> UserrepError | None:
    """Return what to do if a query failed at a Parquet file with a type that Spark does not convert, else None."""
    match = _OTHER_TYPE.search(str(error))
    if match is None:
        return None
    file, column, expected, found = match.groups()
    return UserrepError(
        f"stream: {file} has {found} in column {column}, but the stream was started with {expected}. Rewrite the file "
        "with this type under the same name, then start the stream again."
    )


def _of_type(rows: DataFrame, field: T.StructField) -> Column:
    """Return a column of these rows in its type at the first start; null if there is no such column any more."""
    known = next((each for each in rows.schema if each.name.lower() == field.name.lower()), None)
    if known is None:
        return F.lit(None).cast(field.dataType).alias(field.name)
    column = F.col(sql_name(known.name))
    if isinstance(known.dataType, T.TimestampType) and isinstance(field.dataType, T.StringType):
        column = F.concat(column.cast("string"), F.lit("Z"))  # the session is in UTC
    return (column if known.dataType == field.dataType else column.try_cast(field.dataType)).alias(field.name)


def _parsed_messages(messages: DataFrame, schema: T.StructType) -> DataFrame:
    text = F.col("value").cast("string")
    parsed = F.from_json(text, schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": CORRUPT})
    origin = F.concat_ws("/", "topic", "partition", "offset")
    rows = messages.select(
        parsed.alias("row"), text.alias("text"), F.col("timestamp").alias(ARRIVED), origin.alias(ORIGIN)
    )
    columns = [F.col(f"row.{sql_name(name)}").alias(name) for name in schema.names if name != CORRUPT]
    corrupt = F.coalesce(F.col(f"row.{CORRUPT}"), F.when(F.col("row").isNull(), F.coalesce("text", F.lit(""))))
    return rows.select(*columns, corrupt.alias(CORRUPT), ARRIVED, ORIGIN)


def batch_source(config: Config, name: str) -> Source:
    """Return the batch source with the name of a streaming source."""
    source: Source = config.events.all_sources["events"] if name == "events" else getattr(config, name)
    return source


def kafka_options(kafka: Kafka) -> dict[str, str]:
    """Return the options of Spark's Kafka source, with references to environment variables resolved."""
    options = {
        f"kafka.{name}": with_variables(value, f"stream.kafka.options.{name}")[0]
        for name, value in kafka.options.items()
    }
    return {"kafka.bootstrap.servers": kafka.bootstrap_servers} | options


def check_arriving(spark: SparkSession, config: Config) -> None:
    """Check that the broker answers and that all topics and paths exist.

    Raises
    ------
    UsageError
        If a topic or path does not exist.
    UserrepError
        If the broker does not answer.
    """
    for name, source in stream_sources(config).items():
        if source.topic is not None:
            _check_topic(spark, config.streaming, name, source.topic)
        elif source.path is not None and not is_pattern(source.path) and not exists(source.path):
            raise UsageError(f"stream.{name}.path: no such path, got {source.path}. Create the folder of new rows.")


def _check_topic(spark: SparkSession, stream: Stream, name: str, topic: str) -> None:
    assert stream.kafka is not None
    servers = stream.kafka.bootstrap_servers
    options = kafka_options(stream.kafka) | _CHECK_TIMEOUTS | {"subscribe": topic, "startingOffsets": "earliest"}
    try:
        spark.read.format("kafka").options(**options).load().isEmpty()
    except (PySparkException, Py4JJavaError) as error:
        if "UnknownTopicOrPartition" in str(error) or "does not host" in str(error):
            raise UsageError(
                f"stream.{name}.topic: no such topic at {servers}, got {topic}. Create it or correct the name."
            ) from None
        raise UserrepError(
            f"stream: Kafka at {servers} does not answer ({in_one_line(error)[:200]}). Check that the broker is up and "
            "that stream.kafka.bootstrap_servers is right."
        ) from None

# Databricks notebook source
# MAGIC %md
# MAGIC # 2 · Your own model
# MAGIC
# MAGIC You have labels for a question about users and do not want to build features. This notebook goes from labels
# MAGIC to a model in production. It shows the point-in-time join, a reproducible training set, a model that stays on
# MAGIC the space it was trained on, and scores for all users.
# MAGIC
# MAGIC It continues notebook 1. Settings: `config`, the configuration file of that run.

# COMMAND ----------

import sys
from datetime import timedelta

import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

sys.path += ["notebooks", "../../../notebooks"]  # where Jupyter does not start next to helpers.py
from helpers import draw_gains, draw_staircase, set_style

import userrep
from userrep import EmbeddingJoin, EmbeddingModel, embedding_udf, load_config
from userrep.cli.notebook import settings, show_table
from userrep.features.build import read_features
from userrep.logs import log_to_stderr
from userrep.spaces.registry import artifact_folder, find_space
from userrep.spark.session import get_session
from userrep.tiles.ledger import read_tiles
from userrep.workflows import daily
from userrep.workflows.run_context import RunContext
from userrep.workflows.schedule import dates_between

SETTINGS = settings({"config": "build/notebooks/config.yaml"}, globals().get("dbutils"))
set_style()

config = load_config(SETTINGS["config"])
log_to_stderr()  # prints what runs do
spark = get_session(config.spark.master, config.spark.conf)
embeddings = userrep.open(config, spark=spark)
tables = embeddings.tables
space = find_space(tables, "serving")
print(f"serving: {space.space_id}, trained on days before {space.trained_until}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Labels
# MAGIC
# MAGIC Our example is a campaign for users who are about to become active: **will this user be active on three or
# MAGIC more of the next seven days?** Your labels can come from any source. The join needs a user and a *time* for
# MAGIC each label: the moment at which the model would have scored the user. Our label times are at noon.
# MAGIC
# MAGIC We label users with an event in the four weeks before, once a week per user, on different days of the week.

# COMMAND ----------

HORIZON_DAYS, ACTIVE_DAYS, BEFORE_DAYS, EVERY_DAYS = 7, 3, 28, 7

as_of = max(snapshot.as_of for snapshot in embeddings.snapshots(space.space_id))
last = as_of - timedelta(days=HORIZON_DAYS + 1)
first = space.trained_until  # vectors of earlier dates are in-sample: the encoder has seen what came after them
days = (
    read_tiles(tables, start=first - timedelta(days=BEFORE_DAYS), end=as_of).select("user_id", "event_date").distinct()
)
weekday = F.pmod(F.hash("user_id"), F.lit(EVERY_DAYS))  # of a user: labels are spread over the days
asked = (
    days.select("user_id").distinct()
    .withColumn("asked_on", F.explode(F.sequence(F.lit(first), F.lit(last))))
    .where(F.pmod(F.datediff("asked_on", F.lit(first)), F.lit(EVERY_DAYS)) == weekday)
)  # fmt: skip
ahead = F.datediff("event_date", "asked_on")
labels = (
    asked.join(days, on="user_id", how="inner")
    .groupBy("user_id", "asked_on")
    .agg(
        F.count_if(ahead.between(-BEFORE_DAYS, -1)).alias("days_before"),
        F.count_if(ahead.between(1, HORIZON_DAYS)).alias("days_after"),
    )
    .where("days_before > 0")
    .select(
        "user_id", "asked_on",
        F.expr("CAST(asked_on AS TIMESTAMP) + INTERVAL 12 HOURS").alias("label_at"),
        (F.col("days_after") >= ACTIVE_DAYS).cast("double").alias("label"),
    )
    .cache()
)  # fmt: skip
show_table(labels.orderBy("label_at", "user_id").limit(5).toPandas())
print(f"{labels.count():,} labels, {labels.agg(F.avg('label')).first()[0]:.0%} of them positive")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Vectors as they were known
# MAGIC
# MAGIC A label from March must not get a vector that has seen April. Each snapshot has an as-of date, up to which it
# MAGIC has seen the log, and a time from which consumers could have had it. A label gets the newest snapshot that
# MAGIC was available at its time. The pipeline built only the few snapshots that `snapshots.history_dates` asks for.
# MAGIC We want one per week since the end of training, as if each had been published on time: a *backfill*. It reads
# MAGIC the tiles once for all dates and skips snapshots that exist.

# COMMAND ----------

weekly = dates_between(space.trained_until, as_of, 7)
daily.backfill(RunContext(config, spark, as_of), weekly)
joined = embeddings.join(labels, space=space.space_id)
counts = joined.groupBy("embedding_status").count().collect()
print("labels by status:", {row["embedding_status"]: row["count"] for row in counts})

# COMMAND ----------

# MAGIC %md
# MAGIC Labels with the status `found` have a vector. `not_in_snapshot` means that the snapshot does not contain the
# MAGIC user, `no_snapshot_yet` that the label is earlier than the first snapshot. These two have no vector.
# MAGIC (`docs/how-to/joins.md` lists all statuses.)
# MAGIC
# MAGIC Plotted over time, the join is a staircase. A dot above the line would be a label that sees its own day;
# MAGIC there is none:

# COMMAND ----------

steps = joined.groupBy("label_at", "as_of").count().orderBy("label_at").dropna().toPandas()
draw_staircase(steps)

# COMMAND ----------

# MAGIC %md
# MAGIC ## A reproducible training set
# MAGIC
# MAGIC Register as a *consumer* once, with a name and a contact. From then on, the space of your model cannot be
# MAGIC replaced before you declare that you are ready (see notebook 4). A *training set* is the joined rows plus a
# MAGIC record of the snapshots that they came from. These snapshots are kept, so `read_training_set` returns the
# MAGIC same rows next year.

# COMMAND ----------

embeddings.register_consumer("busy_week", owner="team campaigns")
rows = embeddings.training_set("busy_week", labels, "busy_week", vectors="vector", handleInvalid="skip").cache()
training_set_id = rows.schema["embedding"].metadata["userrep_training_set_id"]
print(f"{rows.count():,} rows of training set {training_set_id}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train and test
# MAGIC
# MAGIC The rows are split by time into training and test. The gap between the two is the horizon, so no training
# MAGIC label looks into the days of the test. The model is a logistic regression on the embedding alone. For
# MAGIC comparison, we fit the same regression on an obvious baseline, known on the same dates: events in the longest
# MAGIC window, and days since the last one.

# COMMAND ----------

cut = last - timedelta(days=13)
train = rows.where(F.col("asked_on") < F.lit(cut - timedelta(days=HORIZON_DAYS)))
test = rows.where(F.col("asked_on") >= F.lit(cut))

where = {"root": config.root} if config.root else {"schema": f"{config.catalog}.{config.schema_}"}
join = EmbeddingJoin(**where)
regression = LogisticRegression(maxIter=60, regParam=1e-3)
model = Pipeline(stages=[join, regression.copy().setFeaturesCol("embedding")]).fit(train)

events = f"num_events_{config.windows_days[-1]}d"
known = read_features(tables, config, space.lineage_id, weekly).selectExpr(
    "user_id", "as_of", f"log1p({events}) AS log_events", "log1p(coalesce(days_since_last_event, 365)) AS log_days"
)
counts = VectorAssembler(inputCols=["log_events", "log_days"], outputCol="counts")
plain = Pipeline(stages=[counts, regression.copy().setFeaturesCol("counts")])
plain = plain.fit(train.join(known, on=["user_id", "as_of"], how="inner"))

scored = model.transform(test).cache()
plain_scored = plain.transform(test.join(known, on=["user_id", "as_of"], how="inner"))
auc = BinaryClassificationEvaluator()
print(f"test AUC on {scored.count():,} labels: embedding {auc.evaluate(scored):.3f}, "
      f"events and recency {auc.evaluate(plain_scored):.3f}")  # fmt: skip

# COMMAND ----------

# MAGIC %md
# MAGIC An AUC does not decide whether a campaign pays. Two other questions do. Of all users with a busy week, how
# MAGIC many are among those we write to (left)? And does a score of 30 % mean three in ten (right)?

# COMMAND ----------


def sampled(frame, most: int = 20_000) -> pd.DataFrame:
    """Collect the labels and scores of up to ``most`` rows."""
    return frame.select("label", vector_to_array("probability")[1].alias("score")).limit(most).toPandas()


draw_gains(
    {"embedding": sampled(scored), "events and recency": sampled(plain_scored)},
    "Busy users reached",
    "Share of busy users, by tenths of the score",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Into production
# MAGIC
# MAGIC The saved pipeline includes its join, and the join includes the space. So the model keeps reading vectors it
# MAGIC understands, even after another space is promoted. Scoring is the same call as on test data, with the current
# MAGIC time as the label time. No feature had to be built.

# COMMAND ----------

home = f"{tables.artifacts_root}/artifacts/consumers/busy_week"
model.write().overwrite().save(f"{home}/{space.space_id}")
labels.write.mode("overwrite").parquet(f"{home}/labels")  # for later comparisons of models
embeddings.ready("busy_week", space.space_id)

saved = PipelineModel.load(f"{home}/{space.space_id}")
now = F.lit(as_of).cast("timestamp") + F.expr("INTERVAL 12 HOURS")
everyone = read_features(tables, config, space.lineage_id, [as_of]).select("user_id", now.alias("label_at"))
scores = saved.transform(everyone).select("user_id", "snapshot_id", vector_to_array("probability")[1].alias("score"))
show_table(scores.orderBy(F.desc("score"), "user_id").limit(5).toPandas())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Encode users yourself
# MAGIC
# MAGIC You can use the encoder directly: as a UDF on rows of features, in DataFrames and SQL, or without Spark in a
# MAGIC service. All ways give the published vectors, to the bit. This makes what-if questions easy. Here we encode
# MAGIC some users again, and one user without any data.

# COMMAND ----------

artifact = artifact_folder(tables, space)
embedding = embedding_udf(artifact)
some = read_features(tables, config, space.lineage_id, [as_of]).orderBy("user_id").limit(100)
encoded = some.select("user_id", now.alias("label_at"), embedding(F.struct("*")).alias("encoded"))
compared = embeddings.join(encoded, space=space.space_id)
same = compared.agg(F.count_if(F.col("encoded") == F.col("embedding")), F.count("*")).first()
print(f"{same[0]} of {same[1]} users encoded again have the published vector, to the bit")

no_data = EmbeddingModel.load(artifact).predict({})
print(f"a user without any data: {len(no_data)} numbers, the first three {no_data[:3].round(2)}")

# COMMAND ----------

# MAGIC %md
# MAGIC Next: **03 · Look into a space**: similar users, a map of users, and how both change over time.

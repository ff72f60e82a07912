# Databricks notebook source
# MAGIC %md
# MAGIC # 2 · Your own model
# MAGIC
# MAGIC You have a question about users, labels for it, and no wish to build features. This notebook goes from labels
# MAGIC to a model in production: the join that knows what could have been known when, a training set that can be made
# MAGIC again, a model that stays on the space it was trained on, and the scores of everyone.
# MAGIC
# MAGIC It goes on where notebook 1 ended. Settings: `config`, the configuration file that the embedding was made
# MAGIC with.

# COMMAND ----------

from datetime import timedelta

import matplotlib.pyplot as plt
import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.features.build import read_features
from userrep.inference import EmbeddingModel, embedding_udf
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.joins.outputs import num_by_status
from userrep.joins.training_sets import create_training_set, training_set_id
from userrep.spaces.consumers import declare_ready, register_consumer
from userrep.spaces.registry import artifact_folder, find_space
from userrep.spaces.snapshots import list_snapshots
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.tiles.ledger import read_tiles
from userrep.workflows import daily, pipeline

SETTINGS = settings({"config": "build/notebooks/config.yaml"}, globals().get("dbutils"))
plt.rcParams.update({"figure.dpi": 72, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})

config = load_config(SETTINGS["config"])
spark = get_session(config.spark.master, config.spark.conf)
tables = open_tables(config, spark)
space = find_space(tables, "serving")
print(f"serving: {space.space_id}, trained on what was before {space.trained_until}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Labels
# MAGIC
# MAGIC Ours is a campaign for those who are about to get going: **will this user be active on three or more of the
# MAGIC next seven days?** Your labels come from wherever they come from. What the join wants of them is a user and a
# MAGIC *time*: the moment at which the model would have been asked. To make that matter, ours are asked at noon of
# MAGIC all kinds of days.
# MAGIC
# MAGIC We ask it of users with an event in the four weeks before; each is asked once a week.

# COMMAND ----------

HORIZON_DAYS, ACTIVE_DAYS, BEFORE_DAYS, EVERY_DAYS = 7, 3, 28, 7

as_of = max(snapshot.as_of for snapshot in list_snapshots(tables, space.space_id))
last = as_of - timedelta(days=HORIZON_DAYS)
first = space.trained_until  # vectors of earlier dates are in-sample: the encoder has seen what came after them
days = (
    read_tiles(tables, start=first - timedelta(days=BEFORE_DAYS), end=as_of).select("user_id", "event_date").distinct()
)
turn = F.pmod(F.hash("user_id"), F.lit(EVERY_DAYS))
asked = (
    days.select("user_id").distinct()
    .withColumn("asked_on", F.explode(F.sequence(F.lit(first), F.lit(last))))
    .where(F.pmod(F.datediff("asked_on", F.lit(first)), F.lit(EVERY_DAYS)) == turn)
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
# MAGIC A label of March must not get a vector that has seen April. Each snapshot has a date up to which it has seen
# MAGIC the log, and a time since when anybody could have had it; a label gets the newest that was there at its time.
# MAGIC The pipeline has made the few snapshots that its own consumer needed. For ours we want one a week since the
# MAGIC end of the training, as if each had been made on time: a *backfill*. It reads the tiles once for all dates, and
# MAGIC skips what is there.

# COMMAND ----------

weekly = daily.dates_between(space.trained_until, as_of, 7)
daily.backfill(pipeline.Pipeline(config, spark, as_of), weekly)
joined = join_embeddings(labels, tables=tables, space=space)
print("labels by what became of them:", num_by_status(joined))

# COMMAND ----------

# MAGIC %md
# MAGIC `found` is what one hopes for. `not_in_snapshot` would be users whom the snapshot did not know yet,
# MAGIC `no_snapshot_yet` labels from before the first: they have no vector, and are not given somebody else's.
# MAGIC (`docs/joins.md` has them all.)
# MAGIC
# MAGIC Seen from above, the join is a staircase. No dot lies above the line, on which a label would see its own day:

# COMMAND ----------

steps = joined.groupBy("label_at", "as_of").count().orderBy("label_at").dropna().toPandas()
figure, panel = plt.subplots(figsize=(7, 3), layout="constrained")
panel.scatter(steps["label_at"], pd.to_datetime(steps["as_of"]), s=steps["count"] / 4, color="#c2410c", linewidths=0)
ends = [steps["label_at"].min(), steps["label_at"].max()]
panel.plot(ends, ends, color="#475569", linewidth=1)
panel.set_xlabel("time of the label")
panel.set_title("Which snapshot a label gets (size: labels)", loc="left")
panel.tick_params(axis="x", rotation=30)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## A training set that can be made again
# MAGIC
# MAGIC Register as a *consumer*, once: a name and who to ask. From then on nobody takes the space away from under
# MAGIC your model without your being ready (notebook 4 is about that). A *training set* is the join and a record of
# MAGIC which snapshots went into it; these are kept, and `read_training_set` gives the same rows next year.

# COMMAND ----------

register_consumer(tables, "busy_week", owner="team campaigns")
options = JoinOptions(missing="drop", vectors="vector")
rows = create_training_set(labels, tables=tables, name="busy_week", consumer="busy_week", options=options).cache()
print(f"{rows.count():,} rows of training set {training_set_id(rows)}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train, and look ahead
# MAGIC
# MAGIC Time decides what is training and what is test, and between the two we leave the horizon out: a training label
# MAGIC must not look into the days that the test begins with. The model is a logistic regression, on the embedding
# MAGIC and nothing else. Beside it stands the same regression on what anybody would try first, known on the same
# MAGIC dates: events of the longest window, and days since the last one.

# COMMAND ----------

cut = last - timedelta(days=13)
train = rows.where(F.col("asked_on") < F.lit(cut - timedelta(days=HORIZON_DAYS)))
test = rows.where(F.col("asked_on") >= F.lit(cut))

where = {"root": config.root} if config.root else {"schema": f"{config.catalog}.{config.schema_}"}
join = EmbeddingJoin(**where, missing="drop", vectors="vector")
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
# MAGIC An AUC does not buy a campaign. Two questions that do: of all who will have a busy week, how many are among
# MAGIC those whom we write to (left)? And is a score of 30 % three in ten (right)?

# COMMAND ----------


def sampled(frame, most: int = 20_000) -> pd.DataFrame:
    """Bring labels and scores of at most so many rows to this machine."""
    return frame.select("label", vector_to_array("probability")[1].alias("score")).limit(most).toPandas()


ours, theirs = sampled(scored), sampled(plain_scored)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
for frame, name, color in ((ours, "embedding", "#c2410c"), (theirs, "events and recency", "#475569")):
    best = frame.sort_values("score", ascending=False)["label"].cumsum().to_numpy()
    share = [k / len(best) for k in range(1, len(best) + 1)]
    left.plot(share, best / best[-1], color=color, label=name)
    tenths = frame.groupby(pd.qcut(frame["score"].rank(method="first"), 10)).mean(numeric_only=True)
    right.plot(tenths["score"], tenths["label"], "o-", color=color, markersize=4, linewidth=1)
left.plot([0, 1], [0, 1], color="#cbd5e1", linewidth=1)
left.set_title("Busy users reached", loc="left")
left.set_xlabel("share of users written to, best first")
left.legend(frameon=False)
right.plot([0, 1], [0, 1], color="#cbd5e1", linewidth=1)
right.set_title("Share of busy users, by tenths of the score", loc="left")
right.set_xlabel("mean score")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Into production
# MAGIC
# MAGIC The saved pipeline holds its join, and the join holds the space: whatever is promoted later, this model goes
# MAGIC on reading vectors that it understands. Scoring is the same call as training, with now for a time. Nobody has
# MAGIC built a feature.

# COMMAND ----------

home = f"{tables.artifacts_root}/artifacts/consumers/busy_week"
model.write().overwrite().save(f"{home}/{space.space_id}")
labels.write.mode("overwrite").parquet(f"{home}/labels")  # for whoever asks later what the model was trained for
declare_ready(tables, "busy_week", space.space_id)

saved = PipelineModel.load(f"{home}/{space.space_id}")
now = F.lit(as_of).cast("timestamp") + F.expr("INTERVAL 12 HOURS")
everyone = read_features(tables, config, space.lineage_id, [as_of]).select("user_id", now.alias("label_at"))
scores = saved.transform(everyone).select("user_id", "snapshot_id", vector_to_array("probability")[1].alias("score"))
show_table(scores.orderBy(F.desc("score"), "user_id").limit(5).toPandas())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Encode somebody yourself
# MAGIC
# MAGIC The encoder is yours to use as well: as a UDF over rows of features, in DataFrames and SQL, and without Spark
# MAGIC in a service. All ways give the published vectors, to the last bit. So "what if" is one line: here the vectors
# MAGIC of users as they are, encoded anew, and of somebody of whom nothing is known.

# COMMAND ----------

artifact = artifact_folder(config, space)
embedding = embedding_udf(artifact)
some = read_features(tables, config, space.lineage_id, [as_of]).orderBy("user_id").limit(100)
anew = some.select("user_id", now.alias("label_at"), embedding(F.struct("*")).alias("anew"))
compared = join_embeddings(anew, tables=tables, space=space)
same = compared.agg(F.count_if(F.col("anew") == F.col("embedding")), F.count("*")).first()
print(f"{same[0]} of {same[1]} users encoded anew have the published vector, to the bit")

nobody = EmbeddingModel.load(artifact).predict({})
print(f"somebody of whom nothing is known: {len(nobody)} numbers, the first three {nobody[:3].round(2)}")

# COMMAND ----------

# MAGIC %md
# MAGIC Next: **03 · Look into a space**: who is near whom, what a map of users looks like, and how it moves.

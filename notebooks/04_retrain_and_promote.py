# Databricks notebook source
# MAGIC %md
# MAGIC # 4 · Retrain and promote
# MAGIC
# MAGIC One day the embedding is to be trained anew: there is more log, or a better recipe. The trouble with a new
# MAGIC embedding is that its numbers mean something else. A model that was trained on the old ones makes nothing of
# MAGIC the new, and does not complain. It just gets worse.
# MAGIC
# MAGIC So every training is a *space* of its own, vectors of two spaces never meet, and what serves changes by one
# MAGIC commit, once everybody who follows is ready. This notebook does it once, with three kinds of consumers: one
# MAGIC that follows, one that stays, and one that has no time.
# MAGIC
# MAGIC It goes on where notebook 3 ended. Settings: `config`, the configuration file that the embedding was made
# MAGIC with.

# COMMAND ----------

from datetime import timedelta

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import functions as F

from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.errors import PromotionRefusedError, UsageError
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.spaces.consumers import declare_ready, pin_consumer, register_consumer
from userrep.spaces.registry import find_space, list_spaces, promote, read_registry, retire, rollback
from userrep.spaces.snapshots import list_snapshots
from userrep.spaces.transitions import planned_promotion
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.workflows import pipeline
from userrep.workflows.space_diff import SavedModel, diff_lines, diff_spaces

SETTINGS = settings({"config": "build/notebooks/config.yaml"}, globals().get("dbutils"))
plt.rcParams.update({"figure.dpi": 72, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})

config = load_config(SETTINGS["config"])
spark = get_session(config.spark.master, config.spark.conf)
tables = open_tables(config, spark)


def show_registry() -> None:
    """Show who uses what: a line per space, then a line per consumer."""
    registry = read_registry(tables)
    used = registry.spaces_in_use()
    spaces = [(of.space_id, of.state, of.trained_until, used.get(of.space_id, "-")) for of in registry.spaces]
    show_table(pd.DataFrame(spaces, columns=["space", "state", "trained until", "embedded daily"]).set_index("space"))
    consumers = [
        (of.name, of.owner, of.pinned_space_id or "what serves", of.ready_for or "-") for of in registry.consumers
    ]
    show_table(pd.DataFrame(consumers, columns=["consumer", "owner", "uses", "ready for"]).set_index("consumer"))


# COMMAND ----------

# MAGIC %md
# MAGIC ## Who is there
# MAGIC
# MAGIC `busy_week` of notebook 2 *follows* what serves. Let there be another team, `mail`, that will not touch its
# MAGIC model before the summer: it *pins* the space that it was trained on. `return_propensity` is the example
# MAGIC consumer that each pipeline trains.

# COMMAND ----------

old = find_space(tables, "serving")
register_consumer(tables, "mail", owner="team mail")
pin_consumer(tables, "mail", old.space_id)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train a second space
# MAGIC
# MAGIC The same configuration, with one more week to learn from. `retrain=True` says that it is to be a new space,
# MAGIC although one is there. It is embedded on the dates of the one that serves, so that both have the same history,
# MAGIC and goes through the same gates. While this runs, everybody's joins give what they gave before.

# COMMAND ----------

as_of = max(snapshot.as_of for snapshot in list_snapshots(tables, old.space_id))
until = old.trained_until + timedelta(days=7)
before = {space.space_id for space in list_spaces(tables)}
longer = load_config(SETTINGS["config"], [f"training.as_ofs.until={until}"])
pipeline.Pipeline(longer, spark, as_of).run(retrain=True)
new = next(space for space in list_spaces(tables) if space.space_id not in before)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What a promotion would do
# MAGIC
# MAGIC The new space is *ready*: its snapshots are published, and nothing serves them. One can look ahead before one
# MAGIC leaps; and whoever leaps too early is stopped, with the name of whom to talk to.

# COMMAND ----------

planned = planned_promotion(read_registry(tables), new.space_id)
print("would move:", *[consumer.name for consumer in planned.moves])
print("stay pinned:", *[consumer.name for consumer in planned.pinned])
print("in the way:", *[consumer.name for consumer in planned.blocks])
try:
    promote(tables, new)
except PromotionRefusedError as refused:
    print(f"\n{refused}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Two spaces, one population
# MAGIC
# MAGIC How different are they, really? Each training makes coordinates of its own, but what both encode is mostly the
# MAGIC same: a linear map carries nearly all of it over. `diff_spaces` (`userrep spaces diff`) fits that map on users
# MAGIC that both have embedded, judges it on users it has not seen, and says what an existing model loses that goes
# MAGIC on through it.

# COMMAND ----------

home = f"{tables.artifacts_root}/artifacts/consumers/busy_week"
own = SavedModel(f"{home}/{old.space_id}", f"{home}/labels")
diff = diff_spaces(tables, config, old=old, new=new, model=own, report=print)
print("\n".join(diff_lines(diff)).replace(own.folder, "busy_week"))

# COMMAND ----------

# MAGIC %md
# MAGIC Number by number it looks like this: for each place in the vector, how well does the new space's number go
# MAGIC along with the old space's? As they are, the vectors agree in some places and not in others (a space is laid
# MAGIC along its main directions, which two trainings share in part), and nothing tells a model which. Through the
# MAGIC map they agree everywhere that matters.

# COMMAND ----------

someone = spark.read.parquet(own.labels).orderBy(F.desc("label_at"), "user_id").limit(1000)
someone = join_embeddings(
    someone.select("user_id", "label_at"), tables=tables, space=old, options=JoinOptions(missing="drop")
)
someone = someone.select("user_id", "label_at", F.col("embedding").alias("old"))
both = {
    "as they are": join_embeddings(someone, tables=tables, space=new),
    "mapped": join_embeddings(someone, tables=tables, space=new, coordinates=old),
}
figure, panel = plt.subplots(figsize=(8, 2.6), layout="constrained")
for (name, frame), color in zip(both.items(), ["#475569", "#c2410c"], strict=True):
    found = frame.select("old", "embedding").toPandas()
    then, now = np.stack(found["old"].to_list()), np.stack(found["embedding"].to_list())
    alike = [np.corrcoef(then[:, k], now[:, k])[0, 1] for k in range(then.shape[1])]
    panel.plot(range(1, len(alike) + 1), alike, "o-", color=color, markersize=3, linewidth=0.8, label=name)
panel.axhline(0, color="#cbd5e1", linewidth=1)
panel.set_xlabel("place in the vector")
panel.set_title("Correlation of new vectors with old ones", loc="left")
panel.legend(frameon=False, loc="lower left")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Getting ready
# MAGIC
# MAGIC `busy_week` trains its model anew on the other space, on the labels since that space was trained. That takes as
# MAGIC long as the training of a logistic regression takes. Then it says so.
# MAGIC
# MAGIC A team that has no time can go on with the model it has: `setMappedFrom` lets the old model's join read the
# MAGIC new space's vectors through the map. We try both on the same test labels, and also what nobody should do: to
# MAGIC hand the old model the new vectors as they are. Its join would refuse, by name; we go around it.

# COMMAND ----------

where = {"root": config.root} if config.root else {"schema": f"{config.catalog}.{config.schema_}"}
labels = spark.read.parquet(own.labels).cache()
last = labels.agg(F.max("asked_on")).first()[0]
train = labels.where(F.col("asked_on").between(new.trained_until, last - timedelta(days=21)))
test = labels.where(F.col("asked_on") >= F.lit(last - timedelta(days=13)))

join = EmbeddingJoin(**where, space=new.space_id, missing="drop", vectors="vector")
regression = LogisticRegression(featuresCol="embedding", maxIter=60, regParam=1e-3)
anew = Pipeline(stages=[join, regression]).fit(train)
anew.write().overwrite().save(f"{home}/{new.space_id}")
declare_ready(tables, "busy_week", new.space_id)

mapped = PipelineModel.load(own.folder)
mapped.stages[0].setMappedFrom(new.space_id)
as_they_are = join_embeddings(test, tables=tables, space=new, options=JoinOptions(missing="drop", vectors="vector"))
scored = {
    "old model, old space": PipelineModel.load(own.folder).transform(test),
    "trained anew, new space": anew.transform(test),
    "old model, new space mapped": mapped.transform(test),
    "old model, new space as it is": mapped.stages[-1].transform(as_they_are),  # around the join, which would refuse
}
judge = BinaryClassificationEvaluator()
auc = {name: judge.evaluate(rows) for name, rows in scored.items()}

figure, panel = plt.subplots(figsize=(7, 2), layout="constrained")
colors = ["#475569", "#c2410c", "#fb923c", "#cbd5e1"]
bars = panel.barh(list(auc)[::-1], list(auc.values())[::-1], color=colors[::-1])
panel.bar_label(bars, fmt="%.3f", padding=3)
panel.set_xlim(0.5, 1)
panel.set_title(f"busy_week: AUC on {test.count():,} test labels", loc="left")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Promote
# MAGIC
# MAGIC One commit. Followers move with it, `mail` stays, and both spaces get their snapshot every night for as long
# MAGIC as somebody needs it.

# COMMAND ----------

promote(tables, new)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC What did that do to a model in production that nobody has told? Nothing: the saved pipeline of notebook 2 is
# MAGIC on the space that it was trained on, whatever serves.

# COMMAND ----------

in_production = PipelineModel.load(own.folder)
some = in_production.transform(test.limit(100))
print("serving:", find_space(tables, "serving").space_id)
print(
    "the old model reads:", *sorted({row.snapshot_id.rsplit("-", 2)[0] for row in some.select("snapshot_id").collect()})
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## And back
# MAGIC
# MAGIC If the new space disappoints, there is a way back that no consumer can block, and forward again without asking
# MAGIC anybody twice. What is not possible is to pull a space away from under somebody: the old one can be retired
# MAGIC when `mail` has left it.

# COMMAND ----------

print("after rollback, serving:", rollback(tables).space_id)
promote(tables, find_space(tables, new.space_id))
print("after promotion, serving:", find_space(tables, "serving").space_id)
try:
    retire(tables, find_space(tables, old.space_id))
except UsageError as refused:
    print(f"\n{refused}")

# COMMAND ----------

# MAGIC %md
# MAGIC The same from a terminal: `userrep spaces list`, `diff`, `promote --dry-run`, `promote`, `rollback`, `retire`,
# MAGIC and `userrep consumers`. `docs/spaces.md` is the page on it.

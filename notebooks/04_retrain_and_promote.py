# Databricks notebook source
# MAGIC %md
# MAGIC # 4 · Retrain and promote
# MAGIC
# MAGIC At some point you will retrain the embedding, because the log is longer or the recipe better. The numbers of
# MAGIC a new embedding have a different meaning. A model that was trained on the old embedding cannot use the new
# MAGIC one, but does not fail. It just gets worse.
# MAGIC
# MAGIC So every training creates a *space* of its own, vectors of two spaces are never mixed, and one commit changes
# MAGIC the serving space once all consumers that follow it are ready. This notebook shows a promotion with three
# MAGIC kinds of consumers: one that follows the serving space, one that pins its space, and one that has no time to
# MAGIC retrain.
# MAGIC
# MAGIC It continues notebook 3. Settings: `config`, the configuration file of that run.

# COMMAND ----------

import sys
from datetime import timedelta

import numpy as np
import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import functions as F

sys.path += ["notebooks", "../../../notebooks"]  # where Jupyter does not start next to helpers.py
from helpers import FAINT, MAIN, OTHER, PALE, draw_agreement, draw_bars, nearest, set_style, unit_vectors

import userrep
from return_propensity.training import train_return_propensity
from userrep import EmbeddingJoin, load_config
from userrep.cli.notebook import settings, show_table
from userrep.errors import PromotionRefusedError, UsageError
from userrep.logs import log_to_stderr
from userrep.spaces.registry import find_space, promote, read_registry, retire, rollback
from userrep.spaces.transitions import planned_promotion
from userrep.spark.session import get_session
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_diff import SavedModel, diff_lines, diff_spaces

SETTINGS = settings({"config": "build/notebooks/config.yaml"}, globals().get("dbutils"))
set_style()

config = load_config(SETTINGS["config"])
log_to_stderr()  # prints what runs do
spark = get_session(config.spark.master, config.spark.conf)
embeddings = userrep.open(config, spark=spark)
tables = embeddings.tables
where = {"root": config.root} if config.root else {"schema": f"{config.catalog}.{config.schema_}"}


def show_registry() -> None:
    """Show a row per space, then a row per consumer."""
    registry = read_registry(tables)
    used = registry.spaces_in_use()
    spaces = [(of.space_id, of.state, of.trained_until, used.get(of.space_id, "-")) for of in registry.spaces]
    show_table(pd.DataFrame(spaces, columns=["space", "state", "trained until", "embedded daily"]).set_index("space"))
    consumers = [
        (of.name, of.owner, of.pinned_space_id or "the serving space", of.ready_for or "-") for of in registry.consumers
    ]
    show_table(pd.DataFrame(consumers, columns=["consumer", "owner", "uses", "ready for"]).set_index("consumer"))


# COMMAND ----------

# MAGIC %md
# MAGIC ## Consumers
# MAGIC
# MAGIC `busy_week` of notebook 2 *follows* the serving space. We add another team, `mail`, that will not change its
# MAGIC model before the summer: it *pins* the space that the model was trained on. `return_propensity` is the
# MAGIC example consumer of `examples/`.

# COMMAND ----------

old = find_space(tables, "serving")
embeddings.register_consumer("mail", owner="team mail", pin=old.space_id)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train a second space
# MAGIC
# MAGIC We use the same configuration with one more week of training data, and another seed. (With the same seed, both
# MAGIC trainings start from the same random weights, and on nearly the same data their coordinates happen to agree.)
# MAGIC `retrain=True` requests a new space although one exists. The new space is embedded on the dates of the serving
# MAGIC space, so both have the same history, and it passes the same gates. While this runs, the joins of all consumers
# MAGIC return the same rows as before. Then the example consumer trains its model on the new space.

# COMMAND ----------

as_of = max(snapshot.as_of for snapshot in embeddings.snapshots(old.space_id))
until = old.trained_until + timedelta(days=7)
before = {space.space_id for space in embeddings.spaces()}
longer = load_config(SETTINGS["config"], [f"training.as_ofs.until={until}", "training.seed=18"])
work = RunContext(longer, spark, as_of)
run_pipeline(work, retrain=True)
train_return_propensity(work)
new = next(space for space in embeddings.spaces() if space.space_id not in before)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Preview a promotion
# MAGIC
# MAGIC The new space is *ready*: its snapshots are published, but it does not serve yet. You can preview a
# MAGIC promotion. A promotion that is too early is refused, and the error names the consumers that are not ready.

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
# MAGIC ## Compare the two spaces
# MAGIC
# MAGIC How different are the spaces? Each training has its own coordinates, but both encode mostly the same
# MAGIC information, and a linear map transfers nearly all of it. `diff_spaces` (`userrep spaces diff`) fits this map
# MAGIC on users of both spaces and evaluates it on other users. It also reports how much an existing model loses if
# MAGIC it continues through the map.

# COMMAND ----------

home = f"{tables.artifacts_root}/artifacts/consumers/busy_week"
own = SavedModel(f"{home}/{old.space_id}", f"{home}/labels")
diff = diff_spaces(tables, old=old, new=new, model=own)
print("\n".join(diff_lines(diff)).replace(own.folder, "busy_week"))

# COMMAND ----------

# MAGIC %md
# MAGIC What if vectors of the two spaces are mixed? We compare the old and the new vectors of the same users. The left
# MAGIC panel shows how strongly each number of the new vector correlates with the same number of the old one. For the
# MAGIC right panel, we look up each user's ten nearest neighbors among the *old* vectors, first with the new vector as
# MAGIC it is, then with the mapped one, and count those that the old vector finds, too.
# MAGIC
# MAGIC As they are, new vectors agree in the last numbers, the propensities, which have a meaning of their own. In the
# MAGIC others they agree at most by chance. Nothing fails, but the neighbors are wrong. Through the map, they are
# MAGIC nearly those of the old vectors.

# COMMAND ----------

someone = spark.read.parquet(own.labels).orderBy(F.desc("label_at"), "user_id").limit(1000)
someone = embeddings.join(someone.select("user_id", "label_at"), space=old.space_id, handleInvalid="skip")
someone = someone.select("user_id", "label_at", F.col("embedding").alias("old"))
through_the_map = EmbeddingJoin(**where, space=old.space_id, vectors="array").setMappedFrom(new.space_id)
both = {
    "as they are": embeddings.join(someone, space=new.space_id, handleInvalid="skip"),
    "mapped": through_the_map.transform(someone),
}
correlations, shared = {}, {}
for name, frame in both.items():
    rows = frame.select("old", "embedding").dropna().toPandas()
    then, now = np.stack(rows["old"].to_list()), np.stack(rows["embedding"].to_list())
    correlations[name] = [np.corrcoef(then[:, k], now[:, k])[0, 1] for k in range(then.shape[1])]
    then, now = unit_vectors(then), unit_vectors(now)
    pairs = zip(nearest(now, then)[0], nearest(then)[0], strict=True)
    shared[name] = np.mean([len(np.intersect1d(*pair)) / 10 for pair in pairs])
draw_agreement(correlations, shared)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Prepare a consumer
# MAGIC
# MAGIC `busy_week` trains its model again on the new space, with the labels since that space was trained. This takes
# MAGIC only as long as fitting a logistic regression. Then it declares that it is ready.
# MAGIC
# MAGIC A team without time can keep its model: `setMappedFrom` lets the join of the old model read vectors of the
# MAGIC new space through the map. We evaluate both on the same test labels. We also show what not to do: apply the
# MAGIC old model to the new vectors as they are. Its join would refuse and name both spaces, so we bypass it. The
# MAGIC model still gives scores, and no error. Only the test labels show how much worse the scores are.

# COMMAND ----------

labels = spark.read.parquet(own.labels).cache()
last = labels.agg(F.max("asked_on")).first()[0]
train = labels.where(F.col("asked_on").between(new.trained_until, last - timedelta(days=21)))
test = labels.where(F.col("asked_on") >= F.lit(last - timedelta(days=13)))

join = EmbeddingJoin(**where, space=new.space_id)
regression = LogisticRegression(featuresCol="embedding", maxIter=60, regParam=1e-3)
retrained = Pipeline(stages=[join, regression]).fit(train)
retrained.write().overwrite().save(f"{home}/{new.space_id}")
embeddings.ready("busy_week", new.space_id)

mapped = PipelineModel.load(own.folder)
mapped.stages[0].setMappedFrom(new.space_id)
as_they_are = embeddings.join(test, space=new.space_id, vectors="vector", handleInvalid="skip")
scored = {
    "old model, old space": PipelineModel.load(own.folder).transform(test),
    "retrained, new space": retrained.transform(test),
    "old model, new space mapped": mapped.transform(test),
    "old model, new space as it is": mapped.stages[-1].transform(as_they_are),  # bypasses the join, which would refuse
}
judge = BinaryClassificationEvaluator()
auc = {name: judge.evaluate(rows) for name, rows in scored.items()}

draw_bars(auc, f"busy_week: AUC on {test.count():,} test labels", [OTHER, MAIN, PALE, FAINT])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Promote
# MAGIC
# MAGIC Promotion is one commit. Followers move with it, and `mail` stays. Both spaces get a daily snapshot as long
# MAGIC as a consumer uses them.

# COMMAND ----------

promote(tables, new)
show_registry()

# COMMAND ----------

# MAGIC %md
# MAGIC How does the promotion affect a model in production that was not updated? It does not: the saved pipeline of
# MAGIC notebook 2 stays on the space that it was trained on.

# COMMAND ----------

in_production = PipelineModel.load(own.folder)
some = in_production.transform(test.limit(100))
print("serving:", find_space(tables, "serving").space_id)
print(
    "the old model reads:", *sorted({row.snapshot_id.rsplit("-", 2)[0] for row in some.select("snapshot_id").collect()})
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Roll back
# MAGIC
# MAGIC If the new space disappoints, you can roll back. No consumer can block that, and you can promote the space
# MAGIC again without asking followers a second time. But you cannot remove a space that a consumer uses: the old one
# MAGIC can only be retired after `mail` has left it.

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
# MAGIC The same commands in a terminal: `userrep spaces list`, `diff`, `promote --dry-run`, `promote`, `rollback`,
# MAGIC `retire`, and `userrep consumers`. See `docs/explanation/spaces.md`.

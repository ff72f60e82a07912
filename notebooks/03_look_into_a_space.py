# Databricks notebook source
# MAGIC %md
# MAGIC # 3 · Look into a space
# MAGIC
# MAGIC Look at an embedding before you trust it. This notebook does so in three ways: which users are close to each
# MAGIC other, what a map of all users shows, and how both change from week to week. It does not replace `userrep
# MAGIC evaluate`, which measures quality; it helps you find out what to measure.
# MAGIC
# MAGIC It continues notebook 2 and uses its weekly snapshots. Settings: `config`, the configuration file of that
# MAGIC run.

# COMMAND ----------

import sys

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

sys.path += ["notebooks", "../../../notebooks"]  # where Jupyter does not start next to helpers.py
from helpers import clusters, draw_drift, draw_movement, draw_shares, draw_users, nearest, set_style, unit_vectors

from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.features.build import read_features
from userrep.items.versions import read_vectors, version_records
from userrep.logs import log_to_stderr
from userrep.sources.read import read_source
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.store.schemas import SNAPSHOT_DRIFT, USER_EMBEDDINGS
from userrep.store.sql import sql_in
from userrep.tiles.ledger import read_tiles
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import monitor_drift

SETTINGS = settings({"config": "build/notebooks/config.yaml"}, globals().get("dbutils"))
set_style()

config = load_config(SETTINGS["config"])
log_to_stderr()  # prints what runs do
spark = get_session(config.spark.master, config.spark.conf)
tables = open_tables(config, spark)
space = find_space(tables, "serving")
snapshots = list_snapshots(tables, space.space_id)
newest = snapshots[-1]
print(
    f"{len(snapshots)} snapshots of space {space.space_id}, the newest {newest.as_of} with {newest.num_users:,} users"
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## A sample of users
# MAGIC
# MAGIC Snapshots are sorted by a hash of the user id, so their first users are a random sample. It consists of the
# MAGIC same users on every date, which we need to measure movement. The sample also limits the memory on this
# MAGIC machine, for any number of users.

# COMMAND ----------

SAMPLE = 1000


def sample_of(snapshot) -> pd.DataFrame:
    """Return the vectors of the snapshot's first users, by user_id."""
    rows = tables.read(USER_EMBEDDINGS, [snapshot.key]).orderBy("user_bucket", "user_id").limit(SAMPLE)
    return rows.select("user_id", "embedding").toPandas().set_index("user_id")["embedding"]


users = sample_of(newest)
z = unit_vectors(users)
print(f"{z.shape[0]:,} users, {z.shape[1]} numbers each")

# COMMAND ----------

# MAGIC %md
# MAGIC ## What users are like, without the embedding
# MAGIC
# MAGIC To check whether close users are *alike*, we need a definition that does not use the embedding. We cluster
# MAGIC the items into a few kinds by their own vectors. Then we count for each user the events of the last four
# MAGIC weeks by kind. A kind is named by the word that is most typical of its titles.

# COMMAND ----------

NUM_KINDS = 8

tiles = read_tiles(tables, start=None, end=newest.as_of)
most_used = tiles.groupBy("item_id").agg(F.sum("num_events").alias("uses")).orderBy(F.desc("uses")).limit(2000)
version = max(day for day in version_records(tables, space.lineage_id) if day <= newest.as_of)
items = read_vectors(tables, space.lineage_id, version).where(F.col("modality") == sorted(config.item_vectors)[0])
items = items.join(most_used, on="item_id", how="inner").select("item_id", "vector").toPandas().sort_values("item_id")
items["kind"] = clusters(unit_vectors(items["vector"]), NUM_KINDS)

names = [f"kind {k}" for k in range(NUM_KINDS)]
if config.items is not None and config.items.columns.text:
    of = config.items.columns
    titles = read_source(spark, config.items, what="items")
    titles = titles.select(F.col(of.item_id).cast("string").alias("item_id"), F.col(of.text).alias("title"))
    titles = titles.join(most_used, on="item_id", how="left_semi").toPandas()
    words = items.merge(titles, on="item_id").assign(word=lambda rows: rows["title"].str.lower().str.split())
    words = words.explode("word", ignore_index=True)
    counts = pd.crosstab(words["word"], words["kind"])
    names = [str((counts[k] - counts.drop(columns=k).sum(axis=1)).idxmax()) for k in range(NUM_KINDS)]

kinds = spark.createDataFrame(items[["item_id", "kind"]])
mine = spark.createDataFrame(pd.DataFrame({"user_id": users.index}))
recent = tiles.where(F.col("event_date") >= F.date_sub(F.lit(newest.as_of), 28)).join(
    mine, on="user_id", how="left_semi"
)
used = (
    recent.join(F.broadcast(kinds), on="item_id", how="inner")
    .groupBy("user_id", "kind")
    .agg(F.sum("num_events").alias("n"))
)
used = used.toPandas().pivot_table(index="user_id", columns="kind", values="n", fill_value=0)
used = used.reindex(index=users.index, columns=range(NUM_KINDS), fill_value=0).to_numpy(float)
shares = used / np.maximum(used.sum(axis=1, keepdims=True), 1)
leading = np.where(used.sum(axis=1) > 0, shares.argmax(axis=1), -1)
show_table(
    pd.Series(np.bincount(leading + 1, minlength=NUM_KINDS + 1), ["nothing", *names], name="users by leading kind")
    .to_frame()
    .T
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Neighbors
# MAGIC
# MAGIC We measure closeness by the cosine. We pick a user with a clear taste, the ten closest users in the sample,
# MAGIC and for comparison a few random ones. Each row is a user; darker means a larger share of the user's events.

# COMMAND ----------

order, near = nearest(z)

chosen = int(np.argmax(shares.max(axis=1) * (used.sum(axis=1) >= np.median(used.sum(axis=1)))))
strangers = np.random.default_rng(0).choice(len(z), 5, replace=False)
lines = [chosen, *order[chosen], *strangers]
marks = ["chosen user", *[f"near: {near[chosen, k]:.2f}" for k in order[chosen]], *(["at random"] * len(strangers))]

draw_shares(shares[lines], marks, names, lines_after=[0, 10])

# COMMAND ----------

# MAGIC %md
# MAGIC One example proves nothing. This is the result for all users in the sample with recent events:

# COMMAND ----------

active = leading >= 0
agree = (leading[order] == leading[:, None])[active].mean()
chance = (np.bincount(leading[active], minlength=NUM_KINDS) / active.sum()) ** 2
print(f"of the ten nearest users, {agree:.0%} have the same leading kind; of random users, {chance.sum():.0%}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## A map
# MAGIC
# MAGIC t-SNE places users so that neighbors stay neighbors. You can trust its islands and what is close within them.
# MAGIC The distances between islands, their sizes and their shapes mean nothing. Left: each user in the color of the
# MAGIC leading kind. Right: the same map, colored by activity. The embedding encodes both: what users like and how
# MAGIC active they are.

# COMMAND ----------

features = read_features(tables, config, space.lineage_id, [newest.as_of]).join(mine, on="user_id", how="left_semi")
busy = f"num_events_{config.windows_days[-1]}d"
busyness = features.select("user_id", busy).toPandas().set_index("user_id")[busy].reindex(users.index).fillna(0)

draw_users(z, leading, names, busyness)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Movement
# MAGIC
# MAGIC The encoder is frozen. So within a space, a user's vector changes only because the user's behavior changes.
# MAGIC How far does a vector move in one week, or in six? We compare each user with the same user on earlier
# MAGIC snapshots, and with another user for scale.

# COMMAND ----------

by_date = {snapshot.as_of: sample_of(snapshot) for snapshot in snapshots}  # the newest revision of each date
cosines = {}
for as_of, vectors in by_date.items():
    both = users.index.intersection(vectors.index)
    with_self = unit_vectors(users.loc[both]) * unit_vectors(vectors.loc[both])
    cosines[(newest.as_of - as_of).days] = with_self.sum(axis=1)
stranger = np.median((z * np.roll(z, 1, axis=0)).sum(axis=1))
draw_movement(cosines, stranger, f"days before {newest.as_of}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Drift
# MAGIC
# MAGIC Single users change; a population should not, at least not overnight. If it does, either the world has
# MAGIC changed or the log has. A change in the log is more likely. `monitor_drift` compares each snapshot with the
# MAGIC previous one. In production, it runs every day between embedding and publishing, where it can block a bad
# MAGIC snapshot (`docs/how-to/drift.md`). Here we run it for the last weeks. Each panel shows a metric with its warning
# MAGIC limit as a dashed line, which points should stay below. The limits are for snapshots a day apart, and ours are a
# MAGIC week apart: within a week, users lose most of their nearest neighbors although nothing is wrong, so
# MAGIC `neighbours_lost` is near its limit here.

# COMMAND ----------

work = RunContext(config, spark, newest.as_of)
recent_dates = list(by_date)[1:][-5:]
for as_of in recent_dates:
    monitor_drift(work, space, as_of)

ids = [snapshot.snapshot_id for snapshot in snapshots if snapshot.as_of in recent_dates]
drift = tables.read(SNAPSHOT_DRIFT).where(sql_in("snapshot_id", ids)).toPandas()
limits = {name: limit for name, limit in config.drift.warn.model_dump().items() if limit}
whole = drift[drift["part"] == ""].pivot_table(index="as_of", columns="metric", values="value")
whole = whole[[name for name in limits if name in whole]]

draw_drift(whole, limits)

# COMMAND ----------

# MAGIC %md
# MAGIC If a metric exceeds its limit, the next question is *which part* changed. Each metric is also stored by
# MAGIC dimension or input. These are the inputs whose distribution changed most on the last date:

# COMMAND ----------

parts = drift[(drift["metric"] == "psi") & (drift["part"] != "") & (drift["as_of"] == newest.as_of)]
show_table(
    parts.nlargest(5, "value")[["part", "value"]]
    .round(3)
    .rename(columns={"part": "input", "value": "psi"})
    .set_index("input")
)

# COMMAND ----------

# MAGIC %md
# MAGIC Next: **04 · Retrain and promote**: how to train a second space and move consumers to it without an outage.

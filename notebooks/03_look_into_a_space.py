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

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pyspark.sql import functions as F
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.features.build import read_features
from userrep.items.versions import read_vectors, version_records
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
plt.rcParams.update({"figure.dpi": 72, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})

config = load_config(SETTINGS["config"])
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
    rows = tables.read(USER_EMBEDDINGS).where(snapshot.where).orderBy("user_bucket", "user_id").limit(SAMPLE)
    return rows.select("user_id", "embedding").toPandas().set_index("user_id")["embedding"]


def matrix(vectors) -> np.ndarray:
    """Stack vectors, each scaled to length one, so that products are cosines."""
    stacked = np.stack(list(vectors))
    return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)


users = sample_of(newest)
z = matrix(users)
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
items["kind"] = KMeans(NUM_KINDS, n_init=4, random_state=0).fit_predict(matrix(items["vector"]))

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
    pd.Series(np.bincount(leading + 1, minlength=NUM_KINDS + 1), ["nothing", *names], name="users whose most is")
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

near = z @ z.T
np.fill_diagonal(near, -np.inf)
order = np.argsort(-near, axis=1)[:, :10]

somebody = int(np.argmax(shares.max(axis=1) * (used.sum(axis=1) >= np.median(used.sum(axis=1)))))
strangers = np.random.default_rng(0).choice(len(z), 5, replace=False)
lines = [somebody, *order[somebody], *strangers]
marks = ["somebody", *[f"near: {near[somebody, k]:.2f}" for k in order[somebody]], *(["at random"] * len(strangers))]

figure, panel = plt.subplots(figsize=(6, 3.8), layout="constrained")
panel.imshow(shares[lines], cmap="Oranges", vmin=0, aspect="auto")
panel.set_yticks(range(len(lines)), marks)
panel.set_xticks(range(NUM_KINDS), names, rotation=30)
panel.axhline(0.5, color="#475569", linewidth=1)
panel.axhline(10.5, color="#475569", linewidth=1)
panel.set_title("What their events are of", loc="left")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC One example proves nothing. This is the result for all users in the sample with recent events:

# COMMAND ----------

active = leading >= 0
agree = (leading[order] == leading[:, None])[active].mean()
chance = (np.bincount(leading[active], minlength=NUM_KINDS) / active.sum()) ** 2
print(f"of ten neighbours, {agree:.0%} have the same leading kind; of ten at random, {chance.sum():.0%} would")

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

x, y = TSNE(2, init="pca", metric="cosine", perplexity=min(30, len(z) // 4), random_state=0).fit_transform(z).T
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for kind, name in enumerate(names):
    left.scatter(
        x[leading == kind], y[leading == kind], s=9, color=plt.get_cmap("tab10")(kind), label=name, linewidths=0
    )
left.scatter(x[~active], y[~active], s=9, color="#cbd5e1", label="nothing", linewidths=0)
left.legend(frameon=False, markerscale=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
left.set_title("Leading kind, last four weeks", loc="left")
points = right.scatter(x, y, s=9, c=np.log10(1 + busyness.to_numpy(float)), cmap="viridis", linewidths=0)
figure.colorbar(points, ax=right, label=f"log10(1 + {busy})")
right.set_title("How much they did", loc="left")
for panel in (left, right):
    panel.set_xticks([])
    panel.set_yticks([])
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Movement
# MAGIC
# MAGIC The encoder is frozen. So within a space, a user's vector changes only because the user's behavior changes.
# MAGIC How far does a vector move in one week, or in six? We compare each user with the same user on earlier
# MAGIC snapshots, and with another user for scale.

# COMMAND ----------

by_date = {snapshot.as_of: sample_of(snapshot) for snapshot in snapshots}  # the newest revision of each date
ages, middle, low, high = [], [], [], []
for as_of, vectors in by_date.items():
    both = users.index.intersection(vectors.index)
    with_self = (matrix(users.loc[both]) * matrix(vectors.loc[both])).sum(axis=1)
    ages.append((newest.as_of - as_of).days)
    for into, share in ((low, 25), (middle, 50), (high, 75)):
        into.append(np.percentile(with_self, share))
stranger = np.percentile((z * np.roll(z, 1, axis=0)).sum(axis=1), 50)

figure, panel = plt.subplots(figsize=(6, 2.8), layout="constrained")
panel.fill_between(ages, low, high, color="#fed7aa", linewidth=0, label="the middle half of users")
panel.plot(ages, middle, "o-", color="#c2410c", markersize=4, label="median")
panel.axhline(stranger, color="#475569", linewidth=1, label="somebody else, same day")
panel.set_xlabel(f"days before {newest.as_of}")
panel.set_title("Cosine of users with themselves", loc="left")
panel.legend(frameon=False)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Drift
# MAGIC
# MAGIC Single users change; a population should not, at least not overnight. If it does, either the world has
# MAGIC changed or the log has. A change in the log is more likely. `monitor_drift` compares each snapshot with the
# MAGIC previous one. In production, it runs every day between embedding and publishing, where it can block a bad
# MAGIC snapshot (`docs/how-to/drift.md`). Here we run it for the last weeks. The chart shows each metric relative to
# MAGIC its warning limit, so all lines should stay below one.

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

figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for k, name in enumerate(whole):
    style = {"color": plt.get_cmap("tab10")(k % 10), "linewidth": 1.2, "marker": "o", "markersize": 3}
    panel.plot(pd.to_datetime(whole.index), whole[name] / limits[name], label=name, **style)
panel.axhline(1, color="#475569", linewidth=1)
panel.set_ylim(bottom=0)
panel.set_title("Drift since the snapshot before, over the limit", loc="left")
panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
panel.tick_params(axis="x", rotation=30)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC If a line exceeds one, the next question is *which part* changed. Each metric is also stored by dimension or
# MAGIC input. These are the inputs whose distribution changed most on the last date:

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

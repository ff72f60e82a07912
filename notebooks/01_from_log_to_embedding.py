# Databricks notebook source
# MAGIC %md
# MAGIC # 1 · From a log to an embedding
# MAGIC
# MAGIC Somewhere there is a log: *this user did this with that item at this time*. By the end of this notebook every
# MAGIC user in it is a point in a space of a few dozen numbers, published with a date on it, so that any team can
# MAGIC train on it without a feature pipeline of its own.
# MAGIC
# MAGIC On the way we look at what each stage leaves behind:
# MAGIC
# MAGIC     event log ──> activity tiles ──> item vectors ──> user features ──> autoencoder ──> snapshots
# MAGIC
# MAGIC **Where it runs.** On Databricks with userrep's wheel on the cluster, in Jupyter, or as `python
# MAGIC notebooks/01_from_log_to_embedding.py --root build/notebooks`. The next cell's settings are widgets on
# MAGIC Databricks, else options of the script or variables such as `USERREP_ROOT`:
# MAGIC
# MAGIC | setting | meaning |
# MAGIC | --- | --- |
# MAGIC | `config` | your configuration file; on Databricks it names `catalog` and `schema`. Empty: a log is generated |
# MAGIC | `as_of` | the date to embed, `YYYY-MM-DD`. Empty: the day after the log's last |
# MAGIC | `root` | where the generated log and its tables go |
# MAGIC | `users` | how many users to generate |

# COMMAND ----------

from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from pyspark.sql import functions as F
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.features.build import read_features
from userrep.items.versions import read_vectors
from userrep.spaces.snapshots import list_snapshots
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.tiles.ledger import read_tiles
from userrep.workflows.pipeline import Pipeline

SETTINGS = settings({"config": "", "as_of": "", "root": "build/notebooks", "users": "3000"}, globals().get("dbutils"))
plt.rcParams.update({"figure.dpi": 72, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})

# COMMAND ----------

# MAGIC %md
# MAGIC ## A log to work on
# MAGIC
# MAGIC Without a log of yours, here is one of a music service that does not exist: plays, saves and skips over a
# MAGIC hundred days. Its users have tastes that drift, its items come and go, and it has the faults of real logs:
# MAGIC rows that come twice, rows that come late, rows with nulls where there should be none, and one user who never
# MAGIC sleeps.

# COMMAND ----------

EXAMPLE = {
    "windows_days": [7, 28],
    "history_days": 0,  # the log is too short for one
    "item_vectors": {"behaviour": {"kind": "als", "dim": 24}, "content": {"kind": "text", "dim": 24}},
    "model": {"latent_dim": 48},
    "training": {"as_ofs": {"until": "2024-02-28"}, "future_days": [7], "num_shards": 2, "batch_size": 128},
    "downstream": {"num_dates": 2},
    "tracking": {"mlflow": False},
    "spark": {"master": "local[2]", "conf": {"spark.driver.memory": "2g"}},
}


def example_config() -> dict:
    """Configure the generated log: where it is, seen from the file, and which of its columns mean what."""
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "event_id": "event_id"}
    more = {"event_type": "event_type", "weight": "weight", "context": ["device"]}
    return {
        "root": "tables",
        "events": {"path": "log/events", "columns": columns | more},
        "items": {"path": "log/items", "columns": {"item_id": "item_id", "text": "title"}},
        **EXAMPLE,
    }


config_file = SETTINGS["config"]
if not config_file:
    root = SETTINGS["root"]
    config_file = f"{root}/config.yaml"
    Path(root).mkdir(parents=True, exist_ok=True)
    Path(config_file).write_text(yaml.safe_dump(example_config(), sort_keys=False), encoding="utf-8")
config = load_config(config_file)
spark = get_session(config.spark.master, config.spark.conf)  # a notebook's own session, where there is one
if not SETTINGS["config"]:
    num_users, first_day = int(SETTINGS["users"]), date(2024, 1, 15)
    spec = LogSpec(num_users, num_items=240, first_day=first_day, num_days=100, events_per_user_day=1.0, seed=11)
    generate_log(spark, spec, f"{root}/log")

# COMMAND ----------

# MAGIC %md
# MAGIC A configuration says where the log is and what its columns mean; nothing is copied or renamed. The rest has
# MAGIC defaults, which our log is a little small for. A wrong key or a missing column is told in one line with its
# MAGIC cure, before any long work.

# COMMAND ----------

print(Path(config_file).read_text(encoding="utf-8"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Run it
# MAGIC
# MAGIC One object has all stages. Each looks at the tables, does what is missing, and writes rows first and then one
# MAGIC commit that makes them count; so a run that was killed is run again, and one that is up to date costs next to
# MAGIC nothing. Run this cell twice to see that. The progress goes to stderr; the table says what each stage did and
# MAGIC why.

# COMMAND ----------

as_of = date.fromisoformat(SETTINGS["as_of"]) if SETTINGS["as_of"] else None
work = Pipeline(config, spark, as_of)
serving = work.run()
as_of = work.schedule.as_of
stages = [(stage.stage, stage.outcome, stage.num_rows, stage.reason) for stage in work.runs.stages]
pd.set_option("display.max_colwidth", 110)
show_table(pd.DataFrame(stages, columns=["stage", "outcome", "rows", "why"]).set_index("stage"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Activity tiles: what anybody did on a day
# MAGIC
# MAGIC A tile is a day, a user, an item and a type of event: how often, with what weight, when last. There is no
# MAGIC model in tiles, only cleaned counting, and they are all that later stages read. A day of them is made once,
# MAGIC and again only if that day's rows in the log have changed.

# COMMAND ----------

tables = work.tables
tiles = read_tiles(tables, start=None, end=as_of)
of_one_day = tiles.where("num_events > 1").orderBy("event_date", "user_id", "item_id", "event_type")
show_table(
    of_one_day.select("event_date", "user_id", "item_id", "event_type", "num_events", "weight").limit(5).toPandas()
)

# COMMAND ----------

by_day = tiles.groupBy("event_date").agg(F.sum("num_events").alias("events"), F.countDistinct("user_id").alias("users"))
by_day = by_day.orderBy("event_date").toPandas()
by_user = tiles.groupBy("user_id").agg(F.sum("num_events").alias("events"))
by_size = by_user.groupBy(F.floor(F.log2("events")).alias("power")).count().orderBy("power").toPandas()

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained", width_ratios=[3, 2])
left.plot(by_day["event_date"], by_day["events"], color="#475569", label="events")
left.plot(by_day["event_date"], by_day["users"], color="#c2410c", label="active users")
left.set_ylim(bottom=0)
left.set_title("Each day", loc="left")
left.legend(frameon=False)
left.tick_params(axis="x", rotation=30)
right.bar([f"{2 ** int(power):,}" for power in by_size["power"]], by_size["count"], color="#475569")
right.set_title("Users by number of events (from, doubling)", loc="left")
right.tick_params(axis="x", rotation=45)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC On the right is what every log looks like: a few users do most of it. The bar on its own, far out, is the user
# MAGIC who never sleeps. Sums over windows must be exact and cheap for all of them, and one such user must not hold
# MAGIC up a task.
# MAGIC
# MAGIC ## Item vectors: what belongs together
# MAGIC
# MAGIC Every item gets a vector per *modality*. **Behaviour** comes from who used what (ALS on implicit feedback);
# MAGIC **content** from what the items say of themselves (titles, or vectors of your own). They know no future: there
# MAGIC is a version for every four weeks, fitted on the events before it alone, and a user's features on a day use
# MAGIC the version that was there on that day. Trained once at the log's end, they would tell training rows what
# MAGIC happens next.
# MAGIC
# MAGIC Below are the items, laid out by t-SNE so that near ones stay near, one picture per modality. Colours are the
# MAGIC same in all: clusters of the first modality's vectors. Where a colour stays together in the other picture too,
# MAGIC items that are used alike read alike.

# COMMAND ----------

version = work.schedule.versions.valid_at(as_of)
most_used = tiles.groupBy("item_id").agg(F.sum("num_events").alias("uses")).orderBy(F.desc("uses")).limit(1000)
vectors = read_vectors(tables, serving.lineage_id, version).join(most_used, on="item_id", how="inner").toPandas()
vectors = vectors.sort_values(["modality", "item_id"])
modalities = sorted(config.item_vectors)


def matrix(column: pd.Series) -> np.ndarray:
    """Stack a column of vectors, each scaled to length one: what they point at is what counts."""
    stacked = np.stack(column.to_list())
    return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)


first = vectors[vectors["modality"] == modalities[0]]
kinds = KMeans(8, n_init=4, random_state=0).fit_predict(matrix(first["vector"]))
kind_of = dict(zip(first["item_id"], kinds, strict=True))

width = 5 * len(modalities)
figure, panels = plt.subplots(1, len(modalities), figsize=(width, 3.6), layout="constrained", squeeze=False)
for panel, modality in zip(panels[0], modalities, strict=True):
    own = vectors[(vectors["modality"] == modality) & vectors["item_id"].isin(kind_of)]
    x, y = TSNE(2, init="pca", metric="cosine", random_state=0).fit_transform(matrix(own["vector"])).T
    panel.scatter(x, y, s=4 + np.sqrt(own["uses"]), c=own["item_id"].map(kind_of), cmap="tab10", linewidths=0)
    panel.set_title(f"{modality}: {config.item_vectors[modality].kind}, valid from {version}", loc="left")
    panel.set_xticks([])
    panel.set_yticks([])
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Features: a user on a date
# MAGIC
# MAGIC A row of features is a user as of a date *D*, made of events before *D* 00:00 UTC and nothing later: for each
# MAGIC window and modality the weighted mean of the vectors of what the user did, and beside them counts, recency,
# MAGIC times of day and whatever the owner's columns say. What is unknown is flagged as unknown, not made up.
# MAGIC
# MAGIC Here is one user on three dates, a week apart. The columns that are lists are shown by their first two
# MAGIC numbers.

# COMMAND ----------

dates = sorted({snapshot.as_of for snapshot in list_snapshots(tables, serving.space_id)})[-3:]
features = read_features(tables, config, serving.lineage_id, dates)
someone = features.where("num_active_days_7d > 2").orderBy("as_of", "user_id").first().user_id
rows = features.where(F.col("user_id") == someone).orderBy("as_of").toPandas().set_index("as_of")


def short(value: object) -> object:
    """Write a list by its first two numbers."""
    if not isinstance(value, np.ndarray | list):
        return value
    return ", ".join(f"{x:.2f}" for x in value[:2]) + (f" … ({len(value)})" if len(value) > 2 else "")


show_table(rows.map(short).T)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The embedding
# MAGIC
# MAGIC The encoder has learned to press all of that into few numbers, from which it can tell both the features and
# MAGIC what the user does in the coming days. Training took half of the features away at random, so that a user
# MAGIC with half of them has a sensible vector, too. It then was frozen, under the id of its *space*; and of
# MAGIC every user there is a vector per *snapshot*, a date with a time from which anybody could have had it.

# COMMAND ----------

snapshots = [
    (s.snapshot_id, s.as_of, s.num_users, s.dim, f"{s.available_at:%Y-%m-%d %H:%M}")
    for s in list_snapshots(tables, serving.space_id)
]
columns = ["snapshot", "as of", "users", "numbers each", "available (UTC)"]
show_table(pd.DataFrame(snapshots, columns=columns).set_index("snapshot"))

# COMMAND ----------

# MAGIC %md
# MAGIC Is anything left in it? The pipeline's last stage is a consumer: will this user be back within seven days? A
# MAGIC logistic regression on the embedding alone, on dates after the training, beside the same regression on how
# MAGIC long ago the last visit was, and on the averages that went into the encoder.

# COMMAND ----------

outcomes = {outcome.input: outcome for outcome in work.outcomes}
names = list(outcomes)[::-1]
figure, panel = plt.subplots(figsize=(7, 1.9), layout="constrained")
colors = ["#c2410c" if name == "embedding" else "#475569" for name in names]
bars = panel.barh([f"{n} ({outcomes[n].dims})" for n in names], [outcomes[n].auc for n in names], color=colors)
panel.bar_label(bars, fmt="%.3f", padding=3)
panel.set_xlim(0.5, 1)
panel.set_title("Back within seven days: test AUC (0.5 is chance)", loc="left")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC That is all. Every night from now on `userrep daily` moves the window sums on by a day, embeds and publishes,
# MAGIC and nobody trains anything:
# MAGIC
# MAGIC     userrep daily --config build/notebooks/config.yaml --as-of 2024-04-25      # once that day is in the log
# MAGIC
# MAGIC Next: **02 · Your own model** joins labels of yours with these vectors, as they were known at each label's
# MAGIC time.

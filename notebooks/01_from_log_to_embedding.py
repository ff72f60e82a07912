# Databricks notebook source
# MAGIC %md
# MAGIC # 1 · From a log to an embedding
# MAGIC
# MAGIC You have an event log: *this user did this with that item at this time*. At the end of this notebook, every
# MAGIC user in the log has an embedding, a vector of a few dozen numbers. It is published with a date, so any team
# MAGIC can train models on it without a feature pipeline of its own.
# MAGIC
# MAGIC On the way, we look at the output of each stage:
# MAGIC
# MAGIC     event log ──> activity tiles ──> item vectors ──> user features ──> autoencoder ──> snapshots
# MAGIC
# MAGIC **Where it runs.** On Databricks with the userrep wheel on the cluster, in Jupyter, or as `python
# MAGIC notebooks/01_from_log_to_embedding.py --root build/notebooks`. The settings in the next cell are widgets on
# MAGIC Databricks; elsewhere, set them by options of the script or by variables such as `USERREP_ROOT`:
# MAGIC
# MAGIC | setting | meaning |
# MAGIC | --- | --- |
# MAGIC | `config` | your configuration file; on Databricks it names `catalog` and `schema`. Empty: a log is generated |
# MAGIC | `as_of` | the as-of date to embed, `YYYY-MM-DD`. Empty: the day after the last day of the log |
# MAGIC | `root` | the folder of the generated log and its tables |
# MAGIC | `users` | the number of users to generate |

# COMMAND ----------

import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pyspark.sql import functions as F

sys.path += ["notebooks", "../../../notebooks"]  # where Jupyter does not start next to helpers.py
from helpers import MAIN, OTHER, draw_bars, draw_items, draw_log, set_style

from return_propensity.training import train_return_propensity
from userrep.cli.notebook import settings, show_table
from userrep.config import load_config
from userrep.features.build import read_features
from userrep.items.versions import read_vectors
from userrep.logs import log_to_stderr
from userrep.spaces.snapshots import list_snapshots
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.tiles.ledger import read_tiles
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

SETTINGS = settings({"config": "", "as_of": "", "root": "build/notebooks", "users": "3000"}, globals().get("dbutils"))
set_style()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The example log
# MAGIC
# MAGIC If you do not set `config`, the next cell generates the log of a fictitious music service: plays, saves and
# MAGIC skips over a hundred days. Tastes drift, and items come and go. The log has the faults of real logs:
# MAGIC duplicate rows, late rows, rows with nulls in required columns, and one bot that is active around the clock.

# COMMAND ----------

EXAMPLE = {
    "windows_days": [7, 28],
    "history_days": 0,  # the log is too short for a history
    "item_vectors": {"behaviour": {"kind": "als", "dim": 24}, "content": {"kind": "text", "dim": 24}},
    "model": {"latent_dim": 48},
    "training": {"as_ofs": {"until": "2024-02-28"}, "future_days": [7], "num_shards": 2, "batch_size": 128},
    "snapshots": {"history_dates": 4},
    "tracking": {"mlflow": False},
    "spark": {"master": "local[2]", "conf": {"spark.driver.memory": "2g"}},
}


def example_config() -> dict:
    """Return the configuration of the generated log, with paths relative to the file."""
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
log_to_stderr()  # prints what runs do
spark = get_session(config.spark.master, config.spark.conf)  # the notebook's own session, if there is one
if not SETTINGS["config"]:
    num_users, first_day = int(SETTINGS["users"]), date(2024, 1, 15)
    spec = LogSpec(num_users, num_items=240, first_day=first_day, num_days=100, events_per_user_day=1.0, seed=11)
    generate_log(spark, spec, f"{root}/log")

# COMMAND ----------

# MAGIC %md
# MAGIC The configuration names the log and maps its columns. Nothing is copied or renamed. All other keys have
# MAGIC defaults; we override some, because the log is small. An unknown key or a missing column is reported in one
# MAGIC line with the fix, before any long work starts.

# COMMAND ----------

print(Path(config_file).read_text(encoding="utf-8"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Run the pipeline
# MAGIC
# MAGIC One object runs all stages. Each stage checks the tables, builds what is missing and then makes its rows
# MAGIC visible by one commit. So you can re-run a killed run, and a run that is up to date costs almost nothing. Run
# MAGIC the next cell twice to see that. Progress goes to stderr. The table shows what each stage did, and why.

# COMMAND ----------

as_of = date.fromisoformat(SETTINGS["as_of"]) if SETTINGS["as_of"] else None
work = RunContext(config, spark, as_of)
serving = run_pipeline(work)
as_of = work.schedule.as_of
stages = [(stage.stage, stage.outcome, stage.num_rows, stage.reason) for stage in work.runs.stages]
pd.set_option("display.max_colwidth", 110)
show_table(pd.DataFrame(stages, columns=["stage", "outcome", "rows", "why"]).set_index("stage"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Activity tiles: what users did each day
# MAGIC
# MAGIC A tile is one row per day, user, item and event type: the number of events, their weight and the time of the
# MAGIC last one. Tiles involve no model, only cleaned counts, and all later stages read tiles instead of the log. A
# MAGIC day of tiles is built once, and again only if the rows of that day change in the log.

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

draw_log(by_day, by_size)

# COMMAND ----------

# MAGIC %md
# MAGIC The right chart has the shape of most logs: a few users cause most events. The separate bar on the far right
# MAGIC is the bot. Window sums must be exact and cheap for all users, and one heavy user must not hold up a task.
# MAGIC
# MAGIC ## Item vectors: which items are alike
# MAGIC
# MAGIC Every item gets one vector per *modality*. **Behaviour** comes from usage (ALS on implicit feedback),
# MAGIC **content** from descriptions of the items (titles, or vectors of your own). Item vectors never see the
# MAGIC future. Every four weeks, a new version is fitted only on earlier events, and features on a date use the
# MAGIC newest version of that date. A single fit at the end of the log would leak the future into training rows.
# MAGIC
# MAGIC The charts show the items, one chart per modality. t-SNE places similar items close to each other. The colors
# MAGIC are the same in all charts: they are clusters of the first modality's vectors. If a color also stays together
# MAGIC in the other chart, items that are used by the same people have similar descriptions.

# COMMAND ----------

version = work.schedule.versions.valid_at(as_of)
most_used = tiles.groupBy("item_id").agg(F.sum("num_events").alias("uses")).orderBy(F.desc("uses")).limit(1000)
vectors = read_vectors(tables, serving.lineage_id, version).join(most_used, on="item_id", how="inner").toPandas()
vectors = vectors.sort_values(["modality", "item_id"])
titles = {
    name: f"{name}: {config.item_vectors[name].kind}, valid from {version}" for name in sorted(config.item_vectors)
}
draw_items(vectors, titles)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Features: a user on a date
# MAGIC
# MAGIC A row of features describes one user as of a date *D*, and uses only events before *D* 00:00 UTC. For each
# MAGIC window and modality, it has the weighted mean of the vectors of the user's items. It also has counts,
# MAGIC recency, times of day and the context columns of the log. Unknown values are flagged, not imputed.
# MAGIC
# MAGIC The table shows one user on three dates, a week apart. Lists are shortened to their first two numbers.

# COMMAND ----------

dates = sorted({snapshot.as_of for snapshot in list_snapshots(tables, serving.space_id)})[-3:]
features = read_features(tables, config, serving.lineage_id, dates)
someone = features.where("num_active_days_7d > 2").orderBy("as_of", "user_id").first().user_id
rows = features.where(F.col("user_id") == someone).orderBy("as_of").toPandas().set_index("as_of")


def short(value: object) -> object:
    """Shorten a list to its first two numbers."""
    if not isinstance(value, np.ndarray | list):
        return value
    return ", ".join(f"{x:.2f}" for x in value[:2]) + (f" … ({len(value)})" if len(value) > 2 else "")


show_table(rows.map(short).T)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The embedding
# MAGIC
# MAGIC The encoder compresses these features into fewer numbers. It is trained to predict from them the features and
# MAGIC what the user does in the following days. Training drops random blocks of features, so users with incomplete
# MAGIC features get a sensible vector, too. After training, the encoder is frozen as a *space* with an id. It then
# MAGIC embeds all users in *snapshots*. A snapshot has an as-of date and a time from which it was available to
# MAGIC consumers.

# COMMAND ----------

snapshots = [
    (s.snapshot_id, s.as_of, s.num_users, s.dim, f"{s.available_at:%Y-%m-%d %H:%M}")
    for s in list_snapshots(tables, serving.space_id)
]
columns = ["snapshot", "as of", "users", "numbers each", "available (UTC)"]
show_table(pd.DataFrame(snapshots, columns=columns).set_index("snapshot"))

# COMMAND ----------

# MAGIC %md
# MAGIC How much information does the embedding keep? We train the example consumer of `examples/`: will this user
# MAGIC return within seven days? It fits a logistic regression on the embedding, on dates after the encoder's
# MAGIC training. For comparison, it fits the same regression on the time since the last visit, and on the averages
# MAGIC that the encoder reads.

# COMMAND ----------

outcomes = {outcome.input: outcome for outcome in train_return_propensity(work)}
auc = {f"{name} ({outcome.dims})": outcome.auc for name, outcome in outcomes.items()}
colors = [MAIN if name == "embedding" else OTHER for name in outcomes]
draw_bars(auc, "Back within seven days: test AUC (0.5 is chance)", colors)

# COMMAND ----------

# MAGIC %md
# MAGIC That is all. From now on, run `userrep daily` once a day. It moves the window sums on by one day, embeds all
# MAGIC users and publishes the snapshot. It trains nothing:
# MAGIC
# MAGIC     userrep daily --config build/notebooks/config.yaml --as-of 2024-04-25      # once that day is in the log
# MAGIC
# MAGIC Next: **02 · Your own model** joins your labels with these vectors, as they were known at the time of each
# MAGIC label.

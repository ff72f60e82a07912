"""How long does a model's fit take if its vectors come from ``EmbeddingJoin``, compared with an expert's range join?

What a consumer does: 200k labels on 10 weekly snapshots of 200k users, 120 numbers each, joined in the pipeline that
fits a logistic regression, without files in between. The peer is the join of ``join_vs_range``, fitted in the same way.
The label is drawn from the user's id; ten iterations. Times include the fit, which is the same work on both sides.

    make bench-join-into-fit
    python -m benchmarks.join_into_fit --small
"""

from pathlib import Path

import numpy as np
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.join_data import SPACE, JoinSite, JoinSize, join_site, run
from benchmarks.join_vs_range import range_joined
from benchmarks.report import Line, alternating, ratio_line
from userrep import EmbeddingJoin

SIZE = JoinSize(labels=200_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and fit with both."""
    site, models = join_site(spark, size, root), {}

    def fit(side: str) -> None:
        models[side] = our_model(site) if side == "ours" else expert_model(site)

    taken = alternating(lambda: fit("ours"), lambda: fit("theirs"), check=lambda: check_models(**models), runs=runs)
    return ratio_line("join_into_fit", size.facts(), taken, peer="Spark, range join on broadcast times, then fit")


def our_model(site: JoinSite) -> LogisticRegressionModel:
    """Join and fit in one pipeline."""
    join = EmbeddingJoin(root=site.tables.location, space=SPACE)
    return Pipeline(stages=[join, _regression()]).fit(_with_label(site.read_labels())).stages[-1]


def expert_model(site: JoinSite) -> LogisticRegressionModel:
    """Join by broadcast times and fit. Labels without a vector are left out, as in ours."""
    rows = _with_label(range_joined(site)).where(F.col("embedding").isNotNull())
    return _regression().fit(rows.withColumn("embedding", array_to_vector("embedding")))


def check_models(ours: LogisticRegressionModel, theirs: LogisticRegressionModel) -> None:
    """Check that both models have the same coefficients, up to the order of sums."""
    for name in ("coefficientMatrix", "interceptVector"):
        np.testing.assert_allclose(*(getattr(model, name).toArray() for model in (ours, theirs)), atol=1e-6)


def _regression() -> LogisticRegression:
    return LogisticRegression(featuresCol="embedding", regParam=0.01, maxIter=10)


def _with_label(rows: DataFrame) -> DataFrame:
    return rows.withColumn("label", (F.xxhash64("user_id") % 2 == 0).cast("double"))


if __name__ == "__main__":
    run("join_into_fit", measure, SIZE, runs=3)

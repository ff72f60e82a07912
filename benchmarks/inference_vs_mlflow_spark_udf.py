"""How fast is the snapshot job, compared with ``mlflow.pyfunc.spark_udf`` on the model that a training logs?

Users with 711 inputs are encoded to 120 dimensions. Both sides read and write Delta. The peer takes the feature columns
as a struct, as in its documentation, in the job's environment. It reads lists, which the signature of the logged model
asks for.

    make bench-inference-vs-mlflow-spark-udf
    python -m benchmarks.inference_vs_mlflow_spark_udf --small
"""

import tempfile
import warnings
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.inference_data import Users, UserSize, against, open_users, run
from benchmarks.report import Line
from userrep.inference.to_arrow import input_columns
from userrep.model.artifact import load_artifact
from userrep.tracking.registered_model import pyfunc_model

SIZE = UserSize(users=50_000)


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with (
        open_users(spark, size, root) as users,
        tempfile.TemporaryDirectory(dir=root) as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # MLflow's own imports have some
        import mlflow.pyfunc

        model, manifest = f"{folder}/model", load_artifact(users.artifact).manifest
        mlflow.pyfunc.save_model(model, **pyfunc_model(users.artifact, manifest))
        return against(
            "inference_vs_mlflow_spark_udf",
            "mlflow.pyfunc.spark_udf",
            lambda users: encode(users, model),
            users,
            runs=runs,
        )


def encode(users: Users, model: str) -> None:
    """Encode all users with MLflow's UDF."""
    import mlflow.pyfunc

    embedding = mlflow.pyfunc.spark_udf(users.tables.spark, model, result_type="array<float>", env_manager="local")
    columns = list(input_columns(load_artifact(users.artifact).layout.spec))
    rows = users.features.select("user_id", embedding(F.struct(*columns)).alias("embedding"))
    rows.write.format("delta").mode("overwrite").save(users.peers)


if __name__ == "__main__":
    run("inference_vs_mlflow_spark_udf", measure, SIZE)

r"""Train the example consumer, which predicts from embeddings whether a user returns in the next days.

Joins published snapshots point in time and trains a Spark ML model. Writes consumer_results and the model.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/train_return_propensity.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "train_return_propensity")

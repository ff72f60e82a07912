r"""Train the example consumer: will a user have an event in the next days, from embeddings alone?

Joins published snapshots point in time, trains a Spark ML model, writes consumer_results and the model.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/train_return_propensity.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("train_return_propensity", __doc__))

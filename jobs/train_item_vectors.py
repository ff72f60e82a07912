r"""Build the versions of the item vectors that the as-of date, the label dates and training need.

A version valid from date V is fitted only on events before V. Writes item_index, item_vectors and
item_vector_versions.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/train_item_vectors.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("train_item_vectors", __doc__))

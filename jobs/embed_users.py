r"""Encode all users on the as-of date and the label dates, and stage the snapshots.

Staged snapshots are not visible to consumers until they are published. Writes user_embeddings and snapshots.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/embed_users.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("embed_users", __doc__))

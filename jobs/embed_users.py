r"""Encode all users of the as-of date and the label dates, and stage the snapshots, unread until published.

Writes user_embeddings and the ledger, snapshots.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/embed_users.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("embed_users", __doc__))

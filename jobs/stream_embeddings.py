r"""Encode users anew as their events arrive, until it is told to stop (SIGTERM) or, with --until-empty, has caught up.

Reads the sources of the section stream; writes embedding_updates, and Redis where stream.redis names one.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 \
        jobs/stream_embeddings.py --config conf/production.yaml
"""

import sys

from userrep.workflows.jobs import stream_main

if __name__ == "__main__":
    sys.exit(stream_main(__doc__))

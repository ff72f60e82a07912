r"""Encode users again as their events arrive, until SIGTERM or, with --until-empty, until no events are left.

Reads the sources of the configuration section stream. Writes embedding_updates and, with stream.redis, Redis.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 \
        jobs/stream_embeddings.py --config conf/production.yaml
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("stream")

r"""Encode users again as their events arrive, until SIGTERM or, with --until-empty, until no events are left.

Reads the sources of the configuration section stream. Writes embedding_updates and, with stream.redis, Redis.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/stream_embeddings.py --config conf/production.yaml
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("stream")

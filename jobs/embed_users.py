r"""Encode all users on the as-of date and its history dates, and stage the snapshots.

Staged snapshots are not visible to consumers until they are published. Writes user_embeddings and snapshots.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/embed_users.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "embed_users")

r"""Check staged snapshots against the gates and publish them; promote the space if none is serving.

Exits with code 3 if a gate refuses. Snapshots published before are not changed.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/publish_snapshot.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "publish_snapshot")

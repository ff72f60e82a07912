r"""Measure the drift between the newest snapshot of the as-of date and the previous one.

Run it between embed_users and publish_snapshot to use it as a gate: if the drift exceeds drift.fail, it exits with
code 3, so that nothing is published. Writes snapshot_drift.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/monitor_drift.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "monitor_drift")

r"""Bring the activity tiles of all days before the as-of date up to date with the event log.

Reads the files of the log that are new or changed, rebuilds the days whose content has changed, writes
user_item_days, rejected_events and, in one commit, tile_days.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/build_activity_tiles.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("build_activity_tiles", __doc__))

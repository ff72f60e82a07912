r"""Build the activity tiles of all new and changed days before the as-of date.

Reads the new and changed files of the event log. Writes user_item_days and rejected_events; one commit to tile_days
makes all days visible.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/build_activity_tiles.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "build_activity_tiles")

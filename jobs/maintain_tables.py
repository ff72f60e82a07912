r"""Compact small files, and remove files that no table version of the last 7 days needs.

Safe to run at the same time as other jobs and streams. Compacts ledgers, embedding_updates and the stream's rows of
rejected_events; removes old files from every table.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/maintain_tables.py --config conf/production.yaml
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "maintain_tables")

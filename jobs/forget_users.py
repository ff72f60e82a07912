r"""Erase users from all tables, snapshots, exports and the online store, and keep them erased.

Without --users, completes earlier requests: removes the rows that older versions of the tables contain, once these
are 7 days old.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/forget_users.py --config conf/production.yaml --users ids.txt
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("forget")

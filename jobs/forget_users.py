r"""Take users out of all tables, snapshots, exports and the online store, and keep them out.

Without --users it ends earlier requests: removes what older versions of the tables still hold, once a week has passed.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/forget_users.py --config conf/production.yaml --users ids.txt
"""

import sys

from userrep.workflows.jobs import erasure_main

if __name__ == "__main__":
    sys.exit(erasure_main(__doc__))

r"""Put staged snapshots through the gates and publish them; promote the space where nothing serves yet.

Exit code 3 where a gate refuses: what was published before stays as it is.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/publish_snapshot.py --config conf/production.yaml --as-of 2024-05-25
"""

import sys

from userrep.workflows.jobs import job_main

if __name__ == "__main__":
    sys.exit(job_main("publish_snapshot", __doc__))

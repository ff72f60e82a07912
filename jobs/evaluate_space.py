r"""Evaluate a space on the days after its training, next to baselines that the same small models read.

Builds what the evaluation's dates lack of tiles, item vectors and features; writes --out and space_metrics.

    spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 \
        jobs/evaluate_space.py --config conf/production.yaml --out build/evaluation
"""

import sys

from userrep.workflows.jobs import evaluation_main

if __name__ == "__main__":
    sys.exit(evaluation_main(__doc__))

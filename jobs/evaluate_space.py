r"""Evaluate a space against baselines on dates after its training.

Builds missing tiles, item vectors and features of these dates. Writes --out and space_metrics.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/evaluate_space.py --config conf/production.yaml --out build/evaluation
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("evaluate")

r"""Build the user features of the as-of date, and of label and training dates if missing or stale.

Each task reads the tiles of its users on all days, without a shuffle. Writes user_features_LINEAGE and feature_sets.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/build_user_features.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "build_user_features")

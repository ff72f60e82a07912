r"""Build the versions of the item vectors that the as-of date, its history and training need.

A version valid from date V is fitted only on events before V. Writes item_index, item_vectors and
item_vector_versions.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/train_item_vectors.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "train_item_vectors")

r"""Train a new embedding space on the features of the training dates and register it as a candidate.

training.backend and training.num_workers set the backend and the number of ranks. Writes training_rows, an artifact
and the registry.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark/standalone.conf \
        jobs/train_autoencoder.py --config conf/production.yaml --as-of 2024-05-25
"""

from userrep.cli.main import main

if __name__ == "__main__":
    main("run", "train_autoencoder")

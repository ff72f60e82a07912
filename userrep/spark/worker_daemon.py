"""The process from which a local session forks its Python workers, with the libraries of most tasks imported.

Without it, each worker imports them itself, which takes 0.6 s for each worker of a session.
"""

import pandas  # noqa: F401, what PySpark imports for Arrow batches
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import pydantic  # noqa: F401
import pyspark.worker  # noqa: F401
import scipy.sparse  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    manager()

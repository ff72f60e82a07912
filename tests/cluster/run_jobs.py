"""A driver: runs every job of userrep.jobs in order, each as spark-submit would, in one session."""

import runpy
import sys

from userrep.jobs import JOBS

arguments = sys.argv[1:]
for job in JOBS:
    sys.argv = [f"jobs/{job}.py", *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise

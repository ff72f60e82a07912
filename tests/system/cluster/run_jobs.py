"""A driver: generates a log and runs every job on it, each as spark-submit runs it, in one session.

spark-submit tests/system/cluster/run_jobs.py LOG CONFIG AS_OF
"""

import runpy
import sys
from pathlib import Path

import userrep
from userrep.cli.pipeline import JOB_NAMES

FORGOTTEN = "u0000001"


def run(job: str, *arguments: str) -> None:
    """Run an entry point of jobs/ as the main program; a job that fails ends the driver with its exit code."""
    sys.argv = [str(Path(userrep.__file__).parents[1] / "jobs" / f"{job}.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    log, config, as_of = sys.argv[1:]
    run("generate_events", "--out", log, "--users", "120", "--items", "40", "--days", "28")
    for name in JOB_NAMES:
        run(name, "--config", config, "--as-of", as_of)
    run("stream_embeddings", "--config", config, "--until-empty")
    run("evaluate_space", "--config", config, "--out", f"{log}/evaluation")
    users = Path(log, "forgotten.txt")
    users.write_text(f"{FORGOTTEN}\n")
    run("forget_users", "--config", config, "--users", str(users))

"""Peers that are installed into places of their own, in the run that compares with them."""

import os
import subprocess

from benchmarks.report import Skipped


def tried(peer: str, command: list[str], what: str = "install", **environment: str) -> str:
    """Run a command and return what it prints; where it fails, the peer is skipped with the last line that it said."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if ran.returncode:
        *_, reason = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise Skipped(f"{peer} does not {what} ({reason})")
    return ran.stdout

"""An S3-compatible server in its own process."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(sys.prefix) / "s3-server" / "bin" / "moto_server"
ENVIRONMENT = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@contextmanager
def s3_server() -> Iterator[str]:
    """Start a server without buckets; yield its endpoint."""
    assert SERVER.exists(), "make setup installs it"
    command = [SERVER, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            running = (re.search(r"Running on (http://\S+)", line) for line in server.stderr)
            endpoint = next(match[1] for match in running if match)
            threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop the server
            yield endpoint
        finally:
            server.terminate()

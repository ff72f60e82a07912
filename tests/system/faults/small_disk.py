"""Run a command on a disk that fills: ``python small_disk.py ROOT FREE COMMAND...``, in its own mount namespace.

ROOT is copied to a small file system with FREE bytes to spare, which is mounted at ROOT for the command. What the
command leaves is copied back. The exit code is the command's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def main(root: Path, free: int, command: list[str]) -> int:
    small = root.with_name("small")
    small.mkdir()
    mount("-t", "tmpfs", "tmpfs", small)
    shutil.copytree(root, small, dirs_exist_ok=True)
    disk = os.statvfs(small)
    mount("-o", f"remount,size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + free}", "tmpfs", small)
    mount("--bind", small, root)
    code = subprocess.run(command, check=False).returncode
    subprocess.run(["umount", root], check=True)
    shutil.rmtree(root)
    shutil.copytree(small, root)
    return code


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))

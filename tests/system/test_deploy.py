"""What the scripts of deploy/ say before long work and what they fetch; a cluster leaves no process behind."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy import fetch_jars, standalone_cluster
from deploy.standalone_cluster import StandaloneCluster
from userrep.errors import UserrepError

pytestmark = pytest.mark.full

DEPLOY = Path(__file__).parents[2] / "deploy"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def build_wheel(folder: Path, *, torch_cuda: str = "13.2", **more: str) -> list[str]:
    """Run the build with a fake Python that always prints the same; return the lines on stderr."""
    python = script(folder / "python", f"echo {torch_cuda}")
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), **more}
    command = ["bash", str(DEPLOY / "build_horovod_wheel.sh"), str(folder / "wheels")]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, (folder / "wheels").exists()) == (1, "", False)
    return ran.stderr.splitlines()


def toolkit(folder: Path, release: str) -> str:
    """A CUDA toolkit of which only nvcc's version can be asked; return its folder."""
    script(folder / "cuda" / "bin" / "nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.86'")
    return str(folder / "cuda")


def test_other_operations_for_gpus_than_nccl_are_refused(tmp_path: Path) -> None:
    assert build_wheel(tmp_path, HOROVOD_GPU_OPERATIONS="MPI") == [
        "setup: HOROVOD_GPU_OPERATIONS is MPI, but NCCL is all that is built for GPUs; unset it for CPUs."
    ]


@pytest.mark.skipif(Path("/usr/local/cuda/bin/nvcc").exists(), reason="this machine has a CUDA toolkit")
def test_a_missing_nvcc_is_reported_with_the_version_to_install(tmp_path: Path) -> None:
    (line,) = build_wheel(tmp_path, HOROVOD_GPU_OPERATIONS="NCCL", CUDA_HOME="/nowhere")
    assert line.startswith("setup: HOROVOD_GPU_OPERATIONS=NCCL needs nvcc, and there is none in CUDA_HOME (/nowhere)")
    assert "Install the CUDA toolkit 13.2, or the package cuda-toolkit[nvcc,nvtx]==13.2.*" in line


def test_a_toolkit_of_another_cuda_than_torch_s_is_refused(tmp_path: Path) -> None:
    (line,) = build_wheel(tmp_path, HOROVOD_GPU_OPERATIONS="NCCL", CUDA_HOME=toolkit(tmp_path, "12.8"))
    assert line.endswith("nvcc is of CUDA 12, but torch is built for CUDA 13.2; set CUDA_HOME to a toolkit 13.x.")


def test_a_torch_for_cpus_cannot_have_nccl(tmp_path: Path) -> None:
    assert build_wheel(tmp_path, torch_cuda="", HOROVOD_GPU_OPERATIONS="NCCL") == [
        "setup: HOROVOD_GPU_OPERATIONS=NCCL, but this torch is built for CPUs; install one built for CUDA."
    ]


def test_missing_headers_of_nccl_are_reported(tmp_path: Path) -> None:
    cuda = toolkit(tmp_path, "13.2")
    (tmp_path / "cuda" / "lib64").mkdir()
    (tmp_path / "cuda" / "lib64" / "libcudart.so").touch()
    (line,) = build_wheel(tmp_path, HOROVOD_GPU_OPERATIONS="NCCL", CUDA_HOME=cuda)
    assert line.startswith(
        "setup: HOROVOD_GPU_OPERATIONS=NCCL needs nccl.h, and 13.2/nvidia/nccl has none; set HOROVOD"
    )


@pytest.mark.parametrize(("named", "addresses"), [("0", ["0"]), ("0 1", ["0", "1"])])
def test_the_discovery_script_names_gpus_as_spark_reads_them(named: str, addresses: list[str]) -> None:
    said = subprocess.check_output([DEPLOY / "gpu_addresses.sh"], env=os.environ | {"GPU_ADDRESSES": named})
    assert json.loads(said) == {"name": "gpu", "addresses": addresses}


def test_the_discovery_script_asks_the_driver_s_own_tool(tmp_path: Path) -> None:
    script(tmp_path / "nvidia-smi", "printf '0\\n1\\n'")
    said = subprocess.check_output([DEPLOY / "gpu_addresses.sh"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert json.loads(said)["addresses"] == ["0", "1"]


PACKAGE = "redis-server"


def ask_for_package(folder: Path, *, user: int = 0, **commands: str) -> tuple[int, str, str]:
    """Run the step with only these commands; return the exit code and what it prints on stdout and stderr."""
    for name, text in ({"id": f"echo {user}"} | commands).items():
        script(folder / name.replace("_", "-"), text)
    command = ["/bin/bash", str(DEPLOY / "debian_package.sh"), PACKAGE]
    ran = subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_an_installed_package_is_left_as_it_is(tmp_path: Path) -> None:
    assert ask_for_package(tmp_path, redis_server="exit 1", apt_get="exit 1") == (0, "", "")


def test_root_updates_debian_s_lists_if_a_package_is_not_found(tmp_path: Path) -> None:
    program, lists = tmp_path / PACKAGE, tmp_path / "lists"
    install = f"[ -e {lists} ] || exit 100; : > {program}; /bin/chmod +x {program}"
    apt_get = f'case "$1" in update) : > {lists} ;; install) {install} ;; esac'
    assert ask_for_package(tmp_path, apt_get=apt_get) == (0, f"setup: {PACKAGE}\n", "")
    assert program.exists()


@pytest.mark.parametrize("commands", [{}, {"apt_get": "exit 100"}, {"apt_get": "exit 1", "user": 1000}])
def test_set_up_continues_without_a_package_and_names_it(tmp_path: Path, commands: dict[str, Any]) -> None:
    code, _, errors = ask_for_package(tmp_path, **commands)
    expected = f"setup: {PACKAGE} is missing, and tests need it. Install it (Debian: apt-get install {PACKAGE}).\n"
    assert (code, errors) == (0, expected)


def test_only_missing_jars_of_the_named_groups_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERREP_JARS", str(tmp_path))
    resolved = []
    monkeypatch.setattr(fetch_jars, "resolve", lambda packages, folder: resolved.append((packages, folder)))
    fetch_jars.jars_folder().mkdir()
    assert fetch_jars.main(["sessions"]) == 0
    assert fetch_jars.main(["sessions", "s3"]) == 1  # as nothing was resolved
    assert resolved == [(fetch_jars.S3_PACKAGES, fetch_jars.jars_folder(fetch_jars.S3_PACKAGES))]
    fetch_jars.broker_jars_folder().mkdir()
    assert fetch_jars.main(["broker"]) == 0
    assert fetch_jars.broker_jars_folder().parent == tmp_path


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cluster_stops_what_it_has_started_and_what_that_has_started(tmp_path: Path) -> None:
    cluster = StandaloneCluster(tmp_path)
    driver = cluster.run("bash", "-c", "setsid sleep 60 & echo $!; wait")
    while not driver.said():
        assert driver.process.poll() is None
    cluster.stop()
    assert driver.process.poll() is not None
    assert not runs(int(driver.said()))


def test_a_process_that_cannot_be_stopped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = StandaloneCluster(tmp_path)
    driver = cluster.run("sleep", "60")
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "terminate", lambda self: None)
        patch.setattr(psutil.Process, "kill", lambda self: None)
        patch.setattr(standalone_cluster, "STOP_SECONDS", 0.1)
        with pytest.raises(UserrepError, match=rf"cluster: processes \[{driver.process.pid}\] could not be stopped"):
            cluster.stop()
    cluster.stop()


def test_a_driver_that_takes_too_long_is_killed_and_its_last_lines_are_printed(tmp_path: Path) -> None:
    driver = StandaloneCluster(tmp_path).run("bash", "-c", "echo busy; sleep 60")
    while not driver.said():
        assert driver.process.poll() is None
    with pytest.raises(UserrepError, match=r"a driver did not end within 0.1 s; its log ends with\nbusy"):
        driver.wait(0.1)
    assert driver.process.poll() == -9

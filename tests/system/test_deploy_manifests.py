"""The manifests for Kubernetes against its own schemas, and the units against systemd's own parser."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.unit.test_submit_files import settings_of
from userrep.config.loading import load_config

pytestmark = pytest.mark.full

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEMD = shutil.which("systemd-analyze")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("name", ["nightly.yaml", "executor.yaml"])
def test_each_object_matches_the_schema_of_its_kind(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_cron_job_runs_a_command_of_userrep_with_a_configuration_that_loads(
    tmp_path: Path,
) -> None:
    objects = {document["kind"]: document for document in documents("nightly.yaml")}
    pod = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "configuration"]
    command, option, path = container["args"]
    assert (command, option, Path(path).parent) == ("nightly", "--config", Path(mount["mountPath"]))
    text = objects["ConfigMap"]["data"][Path(path).name]
    (tmp_path / "userrep.yaml").write_text(text, encoding="utf-8")
    assert load_config(str(tmp_path / "userrep.yaml")).root.startswith("s3a://")
    spark = settings_of(DEPLOY.parent / "conf" / "spark" / "kubernetes.conf")
    assert spark["spark.kubernetes.authenticate.driver.serviceAccountName"] == pod["serviceAccountName"]
    assert spark["spark.kubernetes.container.image"] == container["image"]


@pytest.mark.skipif(SYSTEMD is None, reason="this machine has no systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/userrep/.venv/bin/userrep", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = [str(SYSTEMD), "verify", str(tmp_path / "userrep-nightly.timer")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")

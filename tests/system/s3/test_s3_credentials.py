"""Credentials that run out while a night is under way: it ends soon, says what to do, and run again it is made."""

import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow.fs
import pytest
import yaml

from tests.system.faults.contents import contents, doubled
from tests.system.s3.conftest import AS_OF, Bucket, config_on
from userrep.cli import main as cli
from userrep.config import Config
from userrep.spaces.snapshots import list_snapshots
from userrep.store.filesystem import file_system
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.workflows.daily import daily
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full

NIGHT = AS_OF + timedelta(days=2)
SOON = 30.0  # seconds from the first refusal to the end
FEW = 20  # requests from then on: each of the three clients has its own retries
SPARK = "(Hadoop|aws-sdk-java).*"
BEFORE_IT_WRITES = {
    "at the first request": ".",
    "Spark looks at the log": SPARK,
    "Spark reads": f"{SPARK} GET .*/part-",
    "the lease": "PUT .*/leases/_delta_log/",
}
WHILE_IT_WRITES = {
    "tasks write rows": "(PUT|POST) .*/rejected_events/.*[.]parquet",
    "tasks write vectors": "(PUT|POST) .*/user_embeddings/.*[.]parquet",
    "delta-rs commits vectors": "PUT .*/user_embeddings/_delta_log/",
    "delta-rs commits a ledger": "PUT .*/snapshots/_delta_log/",
}


@pytest.fixture
def world(work: RunContext, bucket: Bucket, request: pytest.FixtureRequest) -> Config:
    """The configuration of a copy of the root."""
    return _copy(work, f"{bucket.uri}/{abs(hash(request.node.name))}")


def _copy(work: RunContext, root: str) -> Config:
    assert work.config.root is not None
    (files, source), (_, target) = file_system(work.config.root), file_system(root)
    pyarrow.fs.copy_files(source, target, source_filesystem=files, destination_filesystem=files)
    return config_on(work.config.events.all_sources["events"].path.removesuffix("/events"), root)


@pytest.fixture(scope="module")
def undisturbed(
    work: RunContext, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, str]]:
    """What a root holds after an undisturbed night."""
    config = _copy(work, f"{bucket.uri}/undisturbed")
    daily(RunContext(config, work.tables.spark, NIGHT), on_time=True)
    return contents(_on_disk(config, tmp_path_factory.mktemp("undisturbed")))


def _on_disk(config: Config, folder: Path) -> Path:
    assert config.root is not None
    files, base = file_system(config.root)
    pyarrow.fs.copy_files(base, str(folder), source_filesystem=files)
    return folder


@pytest.fixture
def night(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Config, str], str]:
    """Run a night whose credentials expire at a request; return what it says at its end."""

    def run(config: Config, at: str) -> str:
        file = tmp_path / "userrep.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
        words = ["userrep", "daily", "--as-if-on-time", "--as-of", str(NIGHT), "--config", str(file)]
        monkeypatch.setattr(sys, "argv", words)
        bucket.store.take_counts()
        with bucket.store.expiring(at), pytest.raises(SystemExit) as ended:
            cli.main()
        said = bucket.store.take_counts()
        assert ended.value.code == 1
        assert 1 <= said["failed"]["ExpiredToken"] <= FEW
        assert time.time() - said["expired_at"] < SOON
        (line,) = [line for line in capsys.readouterr().err.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
        return line

    return run


@pytest.mark.parametrize("when", BEFORE_IT_WRITES)
def test_expired_credentials_are_reported_in_one_line_by_each_reader(
    world: Config, night: Callable[[Config, str], str], when: str
) -> None:
    said = night(world, BEFORE_IT_WRITES[when])
    assert re.match(r"userrep: the object store refuses access( to \S+)? \((ExpiredToken|403)\): the cred", said), said
    assert "Renew them, and run the command again" in said


@pytest.mark.parametrize("when", WHILE_IT_WRITES)
def test_a_night_whose_credentials_expire_leaves_what_is_whole_and_run_again_ends_as_an_undisturbed_one(
    world: Config, work: RunContext, night: Callable[[Config, str], str], undisturbed: dict[str, tuple[int, str]],
    tmp_path: Path, when: str,
) -> None:  # fmt: skip
    assert "Renew them, and run the command again" in night(world, WHILE_IT_WRITES[when])
    again = RunContext(world, work.tables.spark, NIGHT)
    for snapshot in list_snapshots(again.tables, again.schedule.space_to_use().space_id):
        assert again.tables.read(USER_EMBEDDINGS, [snapshot.key]).count() == snapshot.num_users > 0
    daily(again, on_time=True)
    root = _on_disk(world, tmp_path / "root")
    assert contents(root) == undisturbed
    assert doubled(root) == []

"""A command that is killed around its commit to a table in S3: what it was about to do is done once, or not at all."""

from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.support.command_line import Userrep, config_file
from tests.support.points import run_until_killed
from tests.system.s3.conftest import Bucket
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY

pytestmark = pytest.mark.default


def test_a_promotion_killed_before_and_after_its_commit_is_made_once(
    bucket: Bucket, userrep: Userrep, tmp_path: Path
) -> None:
    tables = FileTables(None, f"{bucket.uri}/killed")
    for space in ("s1", "s2"):
        add_candidate(tables, space_id=space, lineage_id="l1", trained_until=date(2024, 5, 1), content_hash=space)
        mark_ready(tables, find_space(tables, space))
    promote(tables, find_space(tables, "s1"))
    command = ("spaces", "promote", "s2", "--config", str(config_file(tmp_path, root=f"{bucket.uri}/killed")))

    def num_commits() -> int:
        return DeltaTable(tables.uri(REGISTRY)).version()

    before = num_commits()
    run_until_killed("commit:registry:before", "-m", "userrep.cli", *command)
    assert (find_space(tables, None).space_id, num_commits()) == ("s1", before)
    run_until_killed("commit:registry:after", "-m", "userrep.cli", *command)
    assert (find_space(tables, None).space_id, num_commits()) == ("s2", before + 1)
    again = userrep(*command)
    assert (again.code, again.out) == (0, "space s2 is serving\n")
    assert (find_space(tables, None).space_id, num_commits()) == ("s2", before + 1)

"""Stream and batch agree to the bit, whatever order events come in."""

import random
from pathlib import Path

import pytest

from tests.support.builders import AS_OF
from tests.support.streaming_world import DAY, NEXT, NewWorld, arrive, events_between

pytestmark = pytest.mark.default


def test_the_stream_ends_as_the_batch_does(new_world: NewWorld, tmp_path: Path) -> None:
    arriving = tmp_path / "arriving"
    world = new_world(tmp_path, events={"path": str(arriving)}, max_files_per_batch=1)
    rows = events_between(world.spark, world.log, AS_OF - 2 * DAY, AS_OF + DAY)
    random.Random(5).shuffle(rows)
    rows += rows[::7]
    third = len(rows) // 3
    for k in range(3):
        arrive(arriving, rows[k * third : (k + 1) * third if k < 2 else None], f"{k}.parquet")
    assert world.stream().batches == 3
    world.close(AS_OF)
    found = world.agreement(NEXT)
    assert found.is_equal
    assert found.equal > 100

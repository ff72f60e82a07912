"""Random schedules: commands that begin at random moments, some of them killed, end as one after the other.

Each command is a process of its own. Killed commands and those that lost run again once the others have ended. The
tables must then be those of one of the orders of these commands. Schedules follow from a seed: one by default, 50 with
``USERREP_FAULTS=all`` (an hour and a half).
"""

import os
import random
import signal
import time
from itertools import permutations
from pathlib import Path

import pytest

from tests.system.faults.commands import COMMANDS, InTurn, check_end, line_of, with_ids
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import World, ended
from tests.system.faults.tally import ALL, SEED, Faults

pytestmark = pytest.mark.full

NUM_COMMANDS = 3  # of a schedule
LONGEST = 40.0  # seconds, after which the last command has begun or was killed


@pytest.mark.parametrize("number", range(50 if ALL else 1))
def test_a_random_schedule_with_kills_ends_as_one_command_after_the_other(
    trained: World, in_turn: InTurn, faults: Faults, tmp_path: Path, number: int
) -> None:
    chance = random.Random(f"{SEED} schedule {number}")
    names = chance.sample(sorted(COMMANDS), NUM_COMMANDS)
    plan = [(name, chance.uniform(0, LONGEST / 2), chance.random() < 0.5) for name in names]
    world = with_ids(trained.copy(tmp_path / "at-once"))

    events = sorted((start, "start", name) for name, start, _ in plan)
    events += sorted((chance.uniform(start, LONGEST), "kill", name) for name, start, is_killed in plan if is_killed)
    began, processes = time.monotonic(), {}
    for moment, event, name in sorted(events):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        if event == "start":
            processes[name] = world.start(line_of(world, name))
        elif processes[name].poll() is None:
            os.killpg(processes[name].pid, signal.SIGKILL)
    again = []
    for name, process in processes.items():
        code, output = ended(process)
        if code == -signal.SIGKILL or check_end(code, output):
            again.append(name)
    for name in again:
        in_turn.run(world, name)

    told = ", ".join(f"{event} {name} at {moment:.1f} s" for moment, event, name in sorted(events))
    wrong = doubled(world.root)
    found = visible(world.root)
    if not in_turn.agrees(found, permutations(names)):
        wrong.append(f"other tables than after any order of the commands: {found}")
    faults.record("random schedule", f"{number}: {told}; run again: {', '.join(again) or 'none'}", wrong)
    assert not faults.failed

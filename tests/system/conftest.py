"""Worlds of commands that have run one after the other, for tests of commands at once."""

import pytest

from tests.support.command_line import Userrep
from tests.system.faults.commands import InTurn, Worlds
from tests.system.faults.fault_world import World


@pytest.fixture(scope="module")
def worlds(trained: World) -> Worlds:
    """The worlds after commands one after the other, beginning with the folder's ``trained``; a module shares them."""
    return {(): trained}


@pytest.fixture
def in_turn(worlds: Worlds, userrep: Userrep) -> InTurn:
    return InTurn(worlds, userrep)

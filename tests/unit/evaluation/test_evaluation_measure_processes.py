"""Measuring with several processes: the same figures as with one, and no second run of the caller's script."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import config_of
from tests.support.evaluation_world import world
from userrep.evaluation.measure import Described, measure, parallel_map
from userrep.evaluation.results import Cost
from userrep.evaluation.tasks.rows import will_return

pytestmark = pytest.mark.full


def test_several_processes_give_the_same_figures_as_one(tmp_path: Path) -> None:
    planted = world(num_users=150)
    settings = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 20}).evaluation
    described = [
        Described(name, x_NF, Cost(0, 0, *x_NF.shape))
        for name, x_NF in (
            ("embedding", planted.taste_of_rows()),
            ("popularity", np.zeros((len(planted.rows), 1), np.float32)),
        )
    ]
    found, _ = measure([will_return(7)], planted.truth, described, settings)
    with parallel_map(10**6) as each:
        again, _ = measure([will_return(7)], planted.truth, described, settings, each=each)
    assert len(found) == 6
    assert [one.by_seed for one in again] == [one.by_seed for one in found]
    assert [one.bootstraps_B.tolist() for one in again] == [one.bootstraps_B.tolist() for one in found]


def test_a_script_that_lacks_the_guard_of_its_main_module_is_not_run_again_by_other_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun')\n"
        "from userrep.evaluation.measure import parallel_map\n"
        "with parallel_map(10**6) as each:\n"
        "    print(list(each(abs, [-1, -2])))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["begun", "[1, 2]"]

"""On a real cluster: ranks on two Workers with a GPU each, and every job by spark-submit."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Submit

SCRIPTS = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, submit: Submit) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trained")
    driver = submit(SCRIPTS / "train_twice.py", folder)
    assert driver.wait() == 0, driver.said()
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def test_two_ranks_on_two_workers_give_the_losses_of_one_process(trained: dict[str, Any]) -> None:
    assert trained["horovod"] == pytest.approx(trained["local"], rel=1e-4)


def test_each_rank_is_given_the_gpu_of_its_own_worker(trained: dict[str, Any]) -> None:
    assert sorted(trained["gpus"]) == [["0"], ["1"]]

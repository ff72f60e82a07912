"""How far the embedding is ahead of its peers, by family of tasks and over all."""

from dataclasses import replace

import numpy as np
import pytest

from userrep.evaluation.families import lead_inputs, leads
from userrep.evaluation.results import Measured

pytestmark = pytest.mark.fast

AKIN = ("next_item_7d", "next_item_7d_new", "return_7d", "return_30d", "volume_30d", "neighbours")


def measured(task: str, name: str, value: float, metric: str | None = None) -> Measured:
    metric = metric or ("r2" if "volume" in task else "auc")
    return Measured(task, metric, name, (value,), np.full(400, value), "x", {"test": 900})


def test_a_lead_is_averaged_over_families() -> None:
    values = {"next_item_7d": 0.6, "next_item_7d_new": 0.55, "return_7d": 0.7, "volume_30d": 0.3, "neighbours": 0.2}
    peer = [measured(task, "raw", 0.5) for task in values]
    first = [measured(task, "embedding", value) for task, value in values.items()]
    country = [measured("neighbours_by_country", name, 0.9) for name in ("embedding", "raw")]  # an input: left out
    found = leads([*first, *peer, *country], AKIN)["raw"]
    assert found["items"] == pytest.approx([0.15] * 3)
    assert found["return and volume"] == pytest.approx([(0.4 - 0.2) / 2] * 3)
    assert found["mean"] == pytest.approx([(0.15 + 0.1 - 0.6) / 3] * 3, abs=1e-4)
    assert "mean without *" not in found


def test_a_second_mean_leaves_out_tasks_akin_to_training() -> None:
    tasks = {"next_item_7d": 0.6, "return_7d": 0.7, "attribute_age": 0.55}
    found = [measured(task, "embedding", value) for task, value in tasks.items()]
    found += [measured(task, "raw", 0.5) for task in tasks]
    by_family = leads(found, AKIN)["raw"]
    assert by_family["mean"] == pytest.approx([(0.2 + 0.4 + 0.1) / 3] * 3, abs=1e-4)
    assert by_family["mean without *"] == pytest.approx([0.1] * 3)
    assert leads(found, ())["raw"]["mean without *"] == by_family["mean"]


def test_metrics_of_a_single_probe_do_not_count() -> None:
    judged = [measured("return_7d", "embedding", 0.6), measured("return_7d", "raw", 0.5)]
    others = [measured("return_7d", "embedding", 0.1, "auc_trees"), measured("return_7d", "raw", 0.9, "accuracy")]
    assert leads([*judged, *others], AKIN) == leads(judged, AKIN)


def test_a_peer_that_is_left_out_of_a_task_is_compared_by_the_others() -> None:
    found = [measured("return_7d", "embedding", 0.6), measured("neighbours", "embedding", 0.3)]
    found += [measured("return_7d", "picks", 0.5)]
    assert list(leads(found, AKIN)["picks"]) == ["return and volume", "mean"]


def test_a_task_with_fewer_than_200_positives_or_negatives_is_not_judged() -> None:
    rare = {"test": 900, "test_positives": 199, "test_negatives": 701}
    enough = rare | {"test_positives": 200}
    tasks = [measured("return_7d", name, value) for name, value in (("embedding", 0.6), ("raw", 0.5))]
    others = [measured("return_30d", name, 0.5) for name in ("embedding", "raw")]
    assert lead_inputs([replace(one, num_examples=rare) for one in tasks]) == []
    assert len(lead_inputs([replace(one, num_examples=enough) for one in tasks])) == 2
    mixed = leads([*(replace(one, num_examples=rare) for one in tasks), *others], AKIN)
    assert mixed["raw"]["mean"].value == 0

"""Which representations an evaluation compares."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.evaluation_world import context_of
from userrep.evaluation.representation import Context
from userrep.evaluation.representations import als, catalog, inputs
from userrep.evaluation.representations.catalog import PICKS, representations

pytestmark = pytest.mark.fast


def test_the_embedding_comes_first_and_every_name_is_a_valid_name() -> None:
    names = list(representations())
    assert names == [
        "embedding", "untrained", "principal", "popularity", "rfm", "rfm_history", "picks", "pooled_longest",
        "pooled_all", "raw", "pca", "als_static", "als_folded", "als_refitted", "nmf",
    ]  # fmt: skip
    assert PICKS in names
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)


def test_both_als_representations_share_one_factorization_and_each_call_makes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contexts = []

    def factorized(context: Context, **_: Any) -> als.Factors:
        contexts.append(context)
        return als.Factors(np.zeros((60, 2), np.float32), als.ItemFactors(np.zeros((40, 2), np.float32), np.eye(2)))

    monkeypatch.setattr(als, "factorized", factorized)
    context = context_of([])
    for num_fits in (1, 2):
        fits = representations()
        for name in ("als_static", "als_folded"):
            fits[name](context)
        assert contexts == [context] * num_fits


def test_the_embedding_in_other_storage_types_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def embedding(artifact_of: Callable[..., Any], storage: str = "float32") -> Any:
        return artifact_of, storage

    monkeypatch.setattr(catalog, "embedding", embedding)
    *_, half, small = representations(["float16", "int8"]).items()
    assert half == ("embedding_float16", (inputs.trained, "float16"))
    assert small == ("embedding_int8", (inputs.trained, "int8"))

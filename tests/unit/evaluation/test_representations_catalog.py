"""Which representations an evaluation compares."""

import re

import pytest

from userrep.evaluation.representations.als import AlsFolded, AlsStatic
from userrep.evaluation.representations.catalog import PICKS, representations
from userrep.evaluation.representations.inputs import Embedding

pytestmark = pytest.mark.fast


def test_the_embedding_comes_first_and_every_representation_has_a_name_of_its_own() -> None:
    names = [one.name for one in representations()]
    assert names == [
        "embedding", "untrained", "popularity", "rfm", "rfm_history", "picks", "pooled_longest", "pooled_all", "raw",
        "pca", "als_static", "als_folded", "als_refitted", "nmf",
    ]  # fmt: skip
    assert PICKS in names
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)


def test_both_als_representations_share_one_factorization_and_each_call_makes_another() -> None:
    (static, folded), (other, _) = (
        [one for one in representations() if isinstance(one, AlsStatic | AlsFolded)] for _ in range(2)
    )
    assert static.factors is folded.factors
    assert static.factors is not other.factors


def test_the_embedding_in_other_storage_types_comes_last() -> None:
    *_, half, small = representations(["float16", "int8"])
    assert isinstance(half, Embedding)
    assert isinstance(small, Embedding)
    assert [(one.name, one.storage) for one in (half, small)] == [
        ("embedding_float16", "float16"), ("embedding_int8", "int8"),
    ]  # fmt: skip

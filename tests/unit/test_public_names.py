"""What ``import userrep`` offers, and what it costs."""

import subprocess
import sys

import pytest

import userrep

pytestmark = pytest.mark.fast


def test_every_public_name_is_found_and_listed() -> None:
    assert {name for name in userrep.__all__ if callable(getattr(userrep, name))} == set(userrep.__all__)
    assert set(userrep.__all__) <= set(dir(userrep))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'userrep' has no attribute 'Embeddings'"):
        _ = userrep.Embeddings


@pytest.mark.full
def test_importing_the_package_imports_neither_spark_nor_torch() -> None:
    code = "import sys, userrep; print([name for name in ('pyspark', 'torch', 'pyarrow') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

"""Settings and output of notebooks that run unchanged on Databricks, in Jupyter and as scripts."""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd


def settings(defaults: Mapping[str, str], dbutils: Any = None) -> dict[str, str]:
    """Return the settings of a notebook by name, as text. ``defaults``: the default of each setting.

    ``dbutils``: pass ``globals().get("dbutils")``. On Databricks it exists, and each setting is a widget of the
    notebook. Elsewhere a setting comes from the environment variable USERREP_NAME. In a script, the option ``--name``
    takes precedence over it, and an unknown option exits with code 2.
    """
    if dbutils is not None:
        for name, default in defaults.items():
            dbutils.widgets.text(name, default)
        return {name: dbutils.widgets.get(name) for name in defaults}
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in defaults.items():
        variable = f"USERREP_{name.upper()}"
        parser.add_argument(f"--{name}", default=os.environ.get(variable, default), help=f"or {variable}")
    return vars(parser.parse_args([] if _is_in_jupyter() else None))


def show_table(table: pd.DataFrame) -> None:
    """Display a table in a notebook, or print it in a script."""
    if _is_in_jupyter():
        from IPython.display import display

        display(table)
    else:
        print(table.to_string())


def _is_in_jupyter() -> bool:
    """Return True if an IPython kernel, such as Jupyter's or Databricks', runs this process.

    The command line of a kernel has no settings of the notebook.
    """
    ipython = sys.modules.get("IPython")  # its import alone proves nothing: libraries import it in scripts
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")

"""What a notebook needs to run in three places as it is: on Databricks, in Jupyter, and as a script."""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd


def settings(defaults: Mapping[str, str], dbutils: Any = None) -> dict[str, str]:
    """Return the settings of a notebook by name, as text; ``defaults`` names all that there are.

    ``dbutils``: ``globals().get("dbutils")``, which is there on Databricks: each setting is a widget of the notebook
    then. Elsewhere a setting is the variable USERREP_NAME of the environment, and of a script an option ``--name``,
    which goes first. A script that is called with other options ends with exit code 2.
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
    """Show a table as notebooks do, or print it where there is none."""
    if _is_in_jupyter():
        from IPython.display import display

        display(table)
    else:
        print(table.to_string())


def _is_in_jupyter() -> bool:
    """Say whether a kernel runs this, Databricks' among them: its command line is not the notebook's."""
    ipython = sys.modules.get("IPython")  # imported or not: libraries import it in scripts, too
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")

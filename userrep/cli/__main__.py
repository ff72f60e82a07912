"""Entry point of ``python -m userrep.cli``."""

from userrep.cli.main import main

main()

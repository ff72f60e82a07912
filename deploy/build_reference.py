"""Build of docs/reference from the code: configuration, tables, commands, Python.

    make reference

writes the pages. A test fails if they differ from the code.
"""

from deploy.reference.commands import commands_page
from deploy.reference.configuration import configuration_page
from deploy.reference.markdown import PAGES
from deploy.reference.python import python_page
from deploy.reference.tables import tables_page


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    lines_by_page = {
        "configuration": configuration_page(), "tables": tables_page(), "commands": commands_page(),
        "python": python_page(),
    }  # fmt: skip
    return {f"{name}.md": "\n".join([*lines, ""]) for name, lines in lines_by_page.items()}


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The reference of docs/reference, made of the code: configuration, tables, commands.

    make reference

writes the pages; a test holds them to the code.
"""

from deploy.reference.commands import commands_page
from deploy.reference.configuration import configuration_page
from deploy.reference.markdown import PAGES
from deploy.reference.tables import tables_page


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    made = {"configuration": configuration_page(), "tables": tables_page(), "commands": commands_page()}
    return {f"{name}.md": "\n".join([*lines, ""]) for name, lines in made.items()}


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

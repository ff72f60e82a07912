"""What stands in the documentation works: links lead somewhere, commands and options exist, examples are read."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from deploy.reference.commands import generator_options, job_command, leaf_commands
from deploy.reference.markdown import anchor
from userrep.config import parse_config

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = "benchmarks|conf|deploy|docs|jobs|notebooks|tests|userrep"
_USERREP = r"(?:\$ |(?:[A-Z_]+=\S+ )+|.* flock .* |docker run .* )?(?:\.venv/bin/)?userrep (.+)"
# A complete configuration, into which parts that a page shows are merged.
AROUND: dict[str, Any] = {
    "root": "build/here",
    "events": {"path": "log", "columns": {"user_id": "user", "item_id": "item", "event_at": "at"}},
    "items": {"path": "items", "columns": {"item_id": "item", "text": "title", "vector": "vector"}},
    "users": {"path": "users", "columns": {"user_id": "user"}},
    "onboarding": {"path": "picks", "columns": {"user_id": "user", "item_id": "item", "event_at": "at"}},
}


class Block(NamedTuple):
    """A block of code of a page."""

    page: Path
    language: str
    text: str


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, and those that are indented as of no language."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(.*?)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    \S.*\n)+", prose(page), flags=re.MULTILINE)
    return [Block(page, name, body) for name, body in fenced] + [Block(page, "", body) for body in indented]


@cache
def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def of_language(*languages: str) -> list[Any]:
    found = [block for page in PAGES for block in blocks(page) if block.language in languages]
    return [pytest.param(block, id=f"{named(block.page)}-{k}") for k, block in enumerate(found)]


@cache
def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\((?!\w+://|mailto:)([^)\s]+)\)", prose(page)):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            wrong.append(link)
    if page.name != "CHANGELOG.md":  # which names what there was
        wrong += [path for path in re.findall(rf"`((?:{FOLDERS})/[a-z0-9_./-]+)", prose(page)) if not there(path)]
    assert wrong == []


def test_a_function_that_links_to_its_module_is_defined_there() -> None:
    links = [
        (page, *link) for page in PAGES for link in re.findall(r"\[`([A-Za-z_.]+)`\]\(([^)\s]+\.py)\)", prose(page))
    ]
    links = [(page, name, path) for page, name, path in links if not path.endswith(name)]
    assert len(links) > 15
    for page, name, path in links:
        tree = ast.walk(ast.parse((page.parent / path).read_text(encoding="utf-8")))
        defined = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert set(name.split(".")) <= defined, f"{named(page)}: {name}"


def there(path: str) -> bool:
    """Return whether a path in code is a file or a folder of the repository, or the beginning of one's name."""
    return bool(list(ROOT.glob(f"{path.rstrip('.')}*")))


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)]+)\)", prose(index))}
    pages = {page for page in PAGES if page.parent != ROOT and page.parent.name != "decisions"} - {index}
    pages |= set((ROOT / "docs" / "tutorials" / "notebooks").glob("*.ipynb"))
    assert {named(page) for page in pages - linked} == set()


@pytest.mark.parametrize("block", of_language("yaml"))
def test_yaml_is_a_configuration_or_a_part_of_one(block: Block) -> None:
    values = yaml.safe_load(block.text)
    around = {key: value for key, value in AROUND.items() if key != "root" or "catalog" not in values}
    parse_config(around | values, named(block.page))


@pytest.mark.parametrize("block", of_language("json"))
def test_json_is_read(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of_language("python"))
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    compile(block.text, named(block.page), "exec")
    imported = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]
    ours = [(node.module, alias.name) for node in imported for alias in node.names if "userrep" in (node.module or "")]
    assert [name for module, name in ours if not hasattr(importlib.import_module(str(module)), name)] == []


def test_every_block_names_its_language() -> None:
    known = {"", "crontab", "json", "python", "sh", "sql", "text", "yaml"}
    strange = {(named(b.page), b.language) for page in PAGES for b in blocks(page) if b.language not in known}
    unnamed = {named(page) for page in PAGES if re.search(r"\n\n```\n", page.read_text(encoding="utf-8"))}
    assert (strange, unnamed) == (set(), set())


def templates() -> Iterator[str]:
    """Yield the texts of the package, with "…" for each value that a message inserts."""
    for path in (ROOT / "userrep").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                yield "".join(map(str, parts))


def test_the_messages_of_the_page_on_symptoms_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "how-to" / "faq.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    known = list(templates())
    assert len(messages) > 40
    assert [message for message in messages if not any(message in text for text in known)] == []


def command_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks, and its code within text, with continued lines made one."""
    shells = [block.text for block in blocks(page) if block.language in ("", "sh", "crontab")]
    lines = [line.strip() for text in shells for line in text.replace("\\\n", " ").splitlines()]
    within = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]
    return [re.split(r"\s#|&&|;|>|→", line.replace("\\|", "|"))[0] for line in lines + within]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_have_the_names_and_options_of_the_documentation(page: Path) -> None:
    wrong = []
    for line in command_lines(page):
        if found := re.match(_USERREP, line):
            wrong += [f"userrep {found[1]}: {fault}" for fault in faults_of_command(found[1])]
        elif found := re.search(r"\bjobs/([a-z_]+)\.py( .*|$)", line):
            wrong += [f"{line}: {option}" for option in options(found[2]) - job_options(found[1])]
        elif found := re.match(r"(?:\$ |[A-Z_]+=\S+ )?make ([a-z].*)", line):
            wrong += [f"make {name}" for name in targets(found[1]) if not is_target(name)]
    assert wrong == []


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<!\S)\[?(--[a-z-]+)", text))


def faults_of_command(text: str) -> list[str]:
    """Return the unknown command of a line, or its unknown options."""
    commands = dict(leaf_commands())
    words = re.sub(r"^--run-id \S+ ", "", text).split()
    first, rest = words[0], " ".join(words[1:])
    if not re.match(r"[a-z]", first) or first in ("…", "..."):
        return []
    known = [name for name in commands if name.split()[0] == first]
    if not known:
        return ["no such command"]
    second = (words[1].split("|") if len(words) > 1 else []) if len(known) > 1 or " " in known[0] else []
    names = [f"{first} {word}" for word in second if re.fullmatch(r"[a-z]+", word)] or [first]
    faults = [f"no such command: {name}" for name in names if name not in commands and " " in name]
    there = {opt for name in known if name in names for parameter in commands[name].params for opt in parameter.opts}
    return faults + sorted(options(rest) - there - {"--help"} if there else set())


@cache
def job_options(name: str) -> set[str]:
    command = job_command(name)
    if command is None:
        return {option for action in generator_options() for option in action.option_strings}
    parameters = dict(leaf_commands())[command.split()[0]].params
    return {"--run-id", *(option for parameter in parameters for option in parameter.opts)}


def targets(text: str) -> list[str]:
    return [word.strip(",.") for word in text.split() if re.match(r"[a-z]", word) and "=" not in word]


def is_target(name: str) -> bool:
    if re.search(rf"^{re.escape(name)}:", MAKEFILE, flags=re.MULTILINE):
        return True
    return (ROOT / "benchmarks" / f"{name.removeprefix('bench-').replace('-', '_')}.py").exists()

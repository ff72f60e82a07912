"""The prose check: what it reads as prose, and what as code."""

from pathlib import Path

import pytest

from tests.prose import Finding, findings_in_markdown, findings_in_python, main

pytestmark = pytest.mark.fast


def in_python(source: str, path: str = "module.py") -> list[tuple[int, str]]:
    return [(finding.line, finding.text) for finding in findings_in_python(source, Path(path))]


def in_markdown(text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.text) for finding in findings_in_markdown(text, Path("page.md"))]


def test_words_in_docstrings_comments_and_messages_are_found_by_line() -> None:
    source = '''"""A module.

Of whoever reads it.
"""

def f():
    """Of rows."""
    # nobody calls it
    raise ValueError(f"{f}: it goes before g")
'''
    assert sorted(in_python(source)) == [(3, "whoever"), (7, "Of "), (8, "nobody"), (9, "goes before")]


def test_words_on_a_page_are_found_by_line_after_a_code_block() -> None:
    page = "# Title\n\n```python\nx = 1  # anew\n```\n\nIt is trained anew.\nColors, not a colour.\n"
    assert in_markdown(page) == [(7, "anew"), (8, "colour")]


@pytest.mark.parametrize(
    "source",
    [
        '"""The argument `beside`, and ``beside`` too."""',
        "x = 1  # `theirs` is a name",
        "x = 1  # see https://example.com/beside/theirs",
        'users = ["nobody", "theirs"]',
        "nobody = theirs(anew)",
    ],
)
def test_code_in_python_is_not_prose(source: str) -> None:
    assert in_python(source) == []


@pytest.mark.parametrize(
    "page",
    [
        "The file `0007-beside-spark.md` and the code ``theirs``.",
        "```\nnobody\n```",
        "[A decision](decisions/0007-beside-spark.md), [another](0008-anew.md#beside).",
        "[A decision][1]\n\n[1]: decisions/0007-beside-spark.md",
        "See <https://example.com/beside> and https://example.com/anew.",
    ],
)
def test_code_and_link_targets_on_a_page_are_not_prose(page: str) -> None:
    assert in_markdown(page) == []


def test_capitals_matter_only_in_rules_on_summaries() -> None:
    assert in_markdown("Nobody reads it.") == [(1, "Nobody")]
    assert in_python('"""Say which rows stay."""') == [(1, "Say which")]
    assert in_python('"""The plan, to say which rows stay."""') == []


def test_the_text_of_a_link_is_prose() -> None:
    assert in_markdown("[Files beside Spark](files.md)") == [(1, "beside")]


def test_of_a_notebook_only_comments_are_prose() -> None:
    source = '# MAGIC It is trained anew.\nprint("trained anew, by nobody")\n'
    assert in_python(source, "notebooks/01.py") == [(1, "anew")]


def test_names_of_tests_are_prose_and_those_of_other_functions_are_not() -> None:
    source = "def test_rows_are_made_anew(): ...\n\ndef test_what_is_gone(): ...\n\ndef made_anew(): ...\n"
    assert in_python(source) == [(1, "anew"), (3, "gone")]
    assert in_python('"""What is gone."""') == []


def test_the_command_prints_findings_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Path("good.md"), Path("bad.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        good.write_text("Plain.\n", encoding="utf-8")
        bad.write_text("Written anew.\n", encoding="utf-8")
        assert main([good]) == 0
        assert capsys.readouterr().out == ""
        assert main([good, bad]) == 1
    assert capsys.readouterr().out == f"{Finding(bad, 1, 'anew', 'again')}\n" == "bad.md:1: 'anew'. Write: again.\n"

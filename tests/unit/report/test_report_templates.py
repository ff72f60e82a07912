"""The filters of the page's templates."""

import pytest

from userrep.report.templates import mark_code, templates

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a `b <i>` c`d", "a <code>b &lt;i&gt;</code> c`d"),
        ("<b>", "&lt;b&gt;"),
        ("on 2024-05-01 08:00 UTC", 'on <span class="nb">2024-05-01 08:00 UTC</span>'),
        ("`spaces promote s001-4f09a1`", "<code>spaces promote s001-4f09a1</code>"),
        ("Space s001-4f09a1", 'Space <span class="nb">s001-4f09a1</span>'),
    ],
)
def test_commands_are_code_and_dates_and_ids_are_not_broken(text: str, written: str) -> None:
    assert mark_code(text) == written


def test_templates_escape_values_and_have_the_formats_as_filters() -> None:
    template = templates().from_string("{{ name }} {{ 1234 | count }} {{ 'see `x`' | mark_code }}")
    assert template.render(name="<i>") == "&lt;i&gt; 1,234 see <code>x</code>"

"""The page in a real Chromium: on a phone and on a desk, light and dark, without a fault and without the network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_facts import facts, hostile, nothing
from userrep.report.file import page
from userrep.report.summary import summarised

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.default,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: `make setup` installs it"),
]

SIZES = {"phone": (375, 667), "desk": (1280, 900)}
# What reaches past the right edge; tables scroll in boxes of their own.
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(of => !of.closest(".scroll table")
    && of.getBoundingClientRect().right > innerWidth + 0.5).map(of => of.outerHTML.slice(0, 100))"""
# The least contrast of texts with what lies behind them: WCAG 2, 4.5 is readable.
CONTRAST = """(() => {
    const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(of => of / 255)
        .map(of => of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4)
        .reduce((sum, of, k) => sum + of * [0.2126, 0.7152, 0.0722][k], 0);
    const ground = of => getComputedStyle(of).backgroundColor;
    const behind = of => { while (ground(of) === "rgba(0, 0, 0, 0)") of = of.parentElement; return ground(of); };
    const texts = [...document.querySelectorAll("body *")].filter(of => of.checkVisibility() && of.tagName !== "title"
        && [...of.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    return texts.map(of => { const color = getComputedStyle(of)[of instanceof SVGElement ? "fill" : "color"];
        const [a, b] = [light(color), light(behind(of))].sort((a, b) => b - a);
        return [(a + 0.05) / (b + 0.05), of.outerHTML.slice(0, 80)]; }).sort((a, b) => a[0] - b[0])[0];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: `make setup` installs it")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # which root cannot have
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("phone", "dark"),
        *(
            pytest.param(*more, marks=pytest.mark.full)
            for more in (("phone", "light"), ("desk", "dark"), ("desk", "light"))
        ),
    ],
)
@pytest.mark.parametrize("known", [facts(), nothing(), hostile(facts())], ids=["well", "nothing", "hostile"])
def test_the_page_is_whole_readable_and_quiet(browser: Any, tmp_path: Path, known: Any, scheme: str, size: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(known, summarised(known)), encoding="utf-8")
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, is_mobile=size == "phone"
    )
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(of => of.open = true)")
    assert (said, asked) == ([], [file.as_uri()])
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.evaluate(TOO_WIDE) == []
    contrast, where = tab.evaluate(CONTRAST)
    assert contrast >= 4.5, where
    is_light = sum(map(int, tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) > 384
    assert is_light == (scheme == "light")
    headings = tab.locator("section h2")
    assert [headings.nth(k).is_visible() for k in range(headings.count())] == [True] * 10
    context.close()


def test_marks_of_charts_are_seen_in_both_schemes(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(facts(), summarised(facts())), encoding="utf-8")
    colours = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.goto(file.as_uri())
        colours[scheme] = tab.evaluate(
            """[".area .c0", ".dots", "svg text"].map(of => document.querySelector(of)).map(of =>
            [getComputedStyle(of).fill, getComputedStyle(of).stroke, of.getBoundingClientRect().height > 0].join())"""
        )
        context.close()
    assert all(of.endswith("true") for found in colours.values() for of in found)
    assert all(a != b for a, b in zip(*colours.values(), strict=True))

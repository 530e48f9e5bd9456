"""The page in a browser: nothing from elsewhere, nothing too wide, light and dark, figures with names; and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark_reports import report
from client.web.chromium import Page, installed
from secure_infer_benchmarks.report import colours, command

pytest.importorskip("matplotlib")

CHECKS = (Path(__file__).parents[1] / "client" / "web" / "checks.js").read_text(encoding="utf-8")
NEEDS_BROWSER = pytest.mark.skipif(installed() is None, reason="no chromium here: apt-get install chromium")
NASTY = "<script>alert(1)</script> & $x_1$"
DRAWN = """
(() => [...document.querySelectorAll("figure svg")].filter((svg) => svg.checkVisibility()).map((svg) => {
  const paints = new Set(), texts = new Set();
  for (const one of svg.querySelectorAll("text")) texts.add(getComputedStyle(one).fill);
  for (const one of svg.querySelectorAll("path, use, line"))
    for (const paint of ["fill", "stroke"]) paints.add(getComputedStyle(one)[paint]);
  const box = svg.getBoundingClientRect();
  const words = [...svg.querySelectorAll("text")], scale = box.width / svg.viewBox.baseVal.width;
  const out = words.filter((text) => text.getBoundingClientRect().right > innerWidth).map((text) => text.textContent);
  const least = scale * Math.min(...words.map((text) => parseFloat(getComputedStyle(text).fontSize)));
  return {paints: [...paints], texts: [...texts], out, least};
}))()
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a report whose words are anything but harmless, and with a suite that it does not know."""
    folder = tmp_path_factory.mktemp("report")
    found = report()
    found["machine"]["processor"] = NASTY
    found["suites"]["cost"]["rows"][1]["plan"] = NASTY
    found["suites"]["peers"]["rows"][1]["who"] = NASTY
    found["suites"]["extraction"] = {"rows": []}
    (folder / "results.json").write_text(json.dumps(found))
    assert command.run([str(folder / "results.json"), "--html", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


def test_the_page_is_one_small_file_that_asks_for_nothing(written: Path) -> None:
    html = written.read_text(encoding="utf-8")
    assert len(html) < 1_500_000
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', html)
    assert "<script" not in html
    assert " style=" not in html
    assert "default-src 'none'; style-src 'sha256-" in html
    assert "without a section here: extraction" in html
    # Every chart: named, described, and with its numbers.
    drawn = html.count("<svg")
    assert drawn == 2 * html.count("<figure")
    assert html.count('role="img"') == html.count("<desc") == drawn
    assert html.count("<details><summary>The numbers") == html.count("<figure")
    # Drawn in the page's own colours, which follow light and dark.
    assert not re.findall(r'(?:fill|stroke)="#(?!000000|ffffff)', html.partition("<main")[2])


@NEEDS_BROWSER
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1180, 390])
def test_the_page_in_a_browser(written: Path, browser: Page, scheme: str, width: int) -> None:
    browser.events.clear()
    browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    browser.size(width, 844)
    browser.open(written.as_uri())
    found: list[dict[str, Any]] = browser.js(DRAWN)
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.js("document.documentElement.scrollWidth") <= width
    checked = browser.js(CHECKS)
    if width > 640:
        checked.pop("wide")  # what is too wide scrolls within its own region there
    assert not any(checked.values()), checked
    asked = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    assert asked == [written.as_uri()]
    for name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
        assert not browser.told(name)
    side = ("light", "dark").index(scheme)
    known = {_rgb(pair[side]) for pair in colours.COLOURS.values()} | {"none"}
    text = {_rgb(colours.COLOURS[name][side]) for name in ("ink", "muted")}
    for svg in found:
        assert {paint for paint in svg["paints"] if not paint.startswith("url(")} <= known | {"rgb(0, 0, 0)"}
        assert set(svg["texts"]) <= text
        assert svg["out"] == []
        assert svg["least"] >= 10
    assert len(found) == browser.js("document.querySelectorAll('figure').length")
    assert browser.js("document.querySelector('h1').textContent").startswith("What does it cost")
    assert browser.js("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_pictures_are_the_same_bytes_for_the_same_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(report(suites=("batches", "throughput"))))
    for folder in ("one", "two"):
        assert command.run([str(results), "--png", str(tmp_path / folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [Path(name).name for name in told["png"]]
    assert names == ["batches.png", "throughput.png"]
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20]) > 1000  # twice the width at which it is shown

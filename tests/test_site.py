"""The documentation site, built as `make docs` builds it: no warnings, no broken links, nothing from the network."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from secure_infer.errors import CATALOGUE
from secure_infer_client import AsyncClient, Client

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="extra docs is not installed",
)
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "use": "href",
}
"""What a browser fetches by itself, by the attribute that says where."""


class Page(HTMLParser):
    """loads: what a browser would fetch. links: what a reader may follow. ids: where links may lead to. silent: pictures
    without a description."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.silent: list[str] = []
        self.text = file.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag in LOADS and LOADS[tag] in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given[LOADS[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.silent.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 25
    assert not [(file.name, url) for file, page in pages.items() for url in page.loads if urlsplit(url).netloc]
    for sheet in site.rglob("*.css"):
        found = re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]+)""", sheet.read_text(encoding="utf-8"))
        assert not found, sheet.name
    # The theme would fetch a script to draw these.
    assert not [file.name for file, page in pages.items() if 'class="mermaid"' in page.text]


def test_every_link_and_file_is_there(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for url in [*page.links, *page.loads]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if target.is_dir() or not target.exists():
                broken.append((file.name, url))  # a directory is no page when read from the file system
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                broken.append((file.name, url))
    assert not broken


def test_pictures_are_described(pages: dict[Path, Page]) -> None:
    assert not [(file.name, source) for file, page in pages.items() for source in page.silent]


def test_search_works_from_the_file_system(site: Path) -> None:
    assert (site / "search" / "search_index.js").stat().st_size > 50_000
    assert 'src="javascripts/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")


def test_errors_are_those_of_the_catalogue(site: Path) -> None:
    shown = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    assert not [reason for reason in CATALOGUE if f"<code>{reason}</code>" not in shown]


def test_figures_are_the_readmes(site: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    figures = re.findall(r"```text\n(.*?)```", readme.partition("## What it costs")[2], flags=re.DOTALL)
    assert figures
    shown = unescape(re.sub(r"<[^>]+>", "", (site / "benchmarks.html").read_text(encoding="utf-8")))
    assert not [block for block in figures if block.strip() not in shown]


def test_the_async_client_is_described_as_it_is() -> None:
    text = (ROOT / "docs" / "reference" / "client.md").read_text(encoding="utf-8")
    own = {name for name in vars(AsyncClient) if not name.startswith("_")} - {"last_call", "close"}
    assert all(asyncio.iscoroutinefunction(getattr(AsyncClient, name)) for name in own)
    asked = {name for name in own if isinstance(inspect.getattr_static(Client, name), property)}
    awaited, methods = (set(re.findall(r"`(\w+)`", part)) for part in text.partition("awaited:")[2].split("Methods"))
    assert awaited == own - asked
    assert methods - {"Client"} == asked


def test_the_picture_of_messages_is_the_diagram() -> None:
    diagram = re.findall(
        r"```mermaid\n(.*?)```", (ROOT / "docs" / "mpc.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    said = re.findall(r"^\s+\w+-+>>\w+: (.+)$", diagram[0], flags=re.MULTILINE)
    assert len(said) == 10
    picture = (ROOT / "docs" / "pictures" / "mpc-messages.svg").read_text(encoding="utf-8")
    shown = unescape(" ".join(re.findall(r"<text[^>]*>([^<]+)</text>", picture)))
    assert not [words for words in said if words not in shown]


def test_parameters_have_lines_of_their_own() -> None:
    spec = spec_from_file_location("parameters", ROOT / "docs" / "hooks" / "parameters.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Rows of x. x: features (B, d); no: name.\nlow, high: bounds.\nRaises InvalidInput.\n\nElse: nothing."
    assert module.listed(text, ["x", "low", "high"]) == (
        "Rows of x.\n\n- **x**: features (B, d); no: name.\n- **low, high**: bounds.\n\nRaises InvalidInput.\n\nElse: nothing."
    )

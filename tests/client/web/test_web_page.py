"""The page in a browser, end to end: a server and parties of its own, headless Chromium, real calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.web.chromium import Page, installed
from secure_infer import models
from secure_infer.errors import ServerUnavailable, SettingsError
from secure_infer.heads import Head, Linear, Square
from secure_infer_client.client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text.embed import MiniLM
from secure_infer_client.web.connection import Connection
from secure_infer_client.web.story import told

LINEAR, HIDDEN = "icd10-chapter-linear", "hidden"
CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
COMMANDS = (Path(__file__).resolve().parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
TEXT = "Jane Miller, born 4 March 1951: acute appendicitis with perforation"
NEEDS_BROWSER = pytest.mark.skipif(installed() is None, reason="no chromium here: apt-get install chromium")


@dataclass
class Web:
    """`secure-infer web` as a process. home: where all of its files would be."""

    ready: dict[str, Any]
    home: Path
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def ask(self, name: str, **asked: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Origin": self.url.rsplit("/", 2)[0]}
        request = urllib.request.Request(f"{self.url}api/{name}", json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return dict(json.load(answer))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Serving the packaged linear head, and one with a hidden layer that is planned in no time."""
    home, heads = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("heads")
    (heads / f"{LINEAR}.head").write_bytes((models.path() / f"{LINEAR}.head").read_bytes())
    drawn = np.random.default_rng(3)
    layers = [
        Linear(drawn.normal(size=(4, 384)) / 20, np.zeros(4)),
        Square(),
        Linear(drawn.normal(size=(3, 4)), np.zeros(3)),
    ]
    head = Head(layers, labels=["low", "middle", "high"], input_bound=1.0, input_norm=1.001, embedder=MiniLM.identity)
    head.save(heads / f"{HIDDEN}.head")
    with (home / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "secure_infer.cli", "web", "--models", str(heads), "--no-browser", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=home,
            env={
                **os.environ,
                "TMPDIR": str(home),
                "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            },
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (home / "stderr").read_text()
        yield Web(json.loads(line), home, process)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture
def page(web: Web, browser: Page) -> Iterator[Page]:
    """The page, newly opened; after the test: nothing came from elsewhere, and the console is empty."""
    browser.events.clear()
    browser.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    browser.size(1180, 860)
    browser.open(web.url)
    browser.wait("document.querySelectorAll('#samples button').length > 1")
    yield browser
    asked = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    assert asked
    assert not [url for url in asked if not url.startswith(web.url)]
    troubles = [
        browser.told(name) for name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    ]
    # What the program refuses is an answer of its own, which Chromium lists as well.
    assert not [one for told in troubles for one in told if "(Unprocessable" not in json.dumps(one)]


def answered(page: Page) -> None:
    page.wait("document.querySelectorAll('.step').length === 8", 120)


def fill_and_ask(page: Page, text: str = TEXT) -> None:
    page.js("document.getElementById('text').focus()")
    page.type(text)
    page.press("Enter", ctrl=True)
    answered(page)


def sound(page: Page) -> None:
    """What `checks.js` looks at; nothing moves, where that is preferred."""
    assert page.js("document.getAnimations().length") == 0
    assert page.js(CHECKS) == {"contrast": [], "ids": [], "headings": [], "small": [], "wide": []}


@NEEDS_BROWSER
def test_a_text_is_classified_by_keyboard_alone(page: Page) -> None:
    order = []
    for _ in range(11):
        page.press("Tab")
        order.append(page.js("(({ id, name }) => id || name || 'sample')(document.activeElement)"))
        # The radio buttons themselves are unseen; what stands for them comes next.
        shown = "document.activeElement.name === 'scheme' ? document.activeElement.nextSibling : document.activeElement"
        assert page.js(f"getComputedStyle({shown}).outlineStyle") != "none", order
    assert order[:4] == ["sample", "about-open", "theme", "text"]
    assert order[4:11] == ["sample"] * 4 + ["scheme", "model", "go"]
    page.js("document.getElementById('text').focus()")
    page.type(TEXT)
    while page.js("document.activeElement.id") != "go":
        page.press("Tab")
    page.press("Enter")
    answered(page)
    told = page.js("document.getElementById('status').textContent")
    assert told.startswith("XI Digestive system")
    assert page.js("[...document.querySelectorAll('del')].map((e) => e.lastChild.textContent)") == ["name", "date"]
    assert page.js("document.querySelectorAll('.strip')[1].children.length") == 384
    assert page.js("document.querySelectorAll('[aria-label=\"Labels with probabilities\"] li').length") == 5
    assert "Nothing of them was found" in page.js("document.getElementById('result').textContent")
    assert "noise is about 1" in page.js("document.querySelector('.two figcaption').textContent")
    assert "in the clear" in page.js("document.querySelectorAll('.step')[7].textContent")
    sound(page)


@NEEDS_BROWSER
def test_secret_sharing_shows_three_parties(page: Page) -> None:
    page.js("document.getElementById('model').value = 'hidden'")
    page.js("document.querySelector('input[value=ckks]').focus()")
    page.press("ArrowRight")
    assert page.js("document.querySelector('input[value=mpc]').checked")
    fill_and_ask(page)
    assert page.js("[...document.querySelectorAll('.party h3')].map((e) => e.textContent)") == [
        "Party 0",
        "Party 1",
        "Dealer",
    ]
    assert page.js("document.querySelectorAll('.party canvas').length") == 2
    text = page.js("document.getElementById('result').textContent")
    assert re.search(r"1 round, \d+ bytes each way", text)
    assert re.search(r"brought [\d,]+ random bytes", text)
    assert "Both halves added up" in text
    assert "3,072 bytes, as even as noise" in text
    sound(page)


@NEEDS_BROWSER
def test_the_explanation_comes_on_demand(page: Page) -> None:
    fill_and_ask(page)
    page.js("document.getElementById('explain-words').focus()")
    page.press("Enter")
    page.wait("document.querySelectorAll('.why mark').length === 4")
    rows = page.js(
        "[...document.querySelectorAll('.why .bars li')].map((e) => [e.firstChild.textContent, e.lastChild.textContent])"
    )
    assert rows[0][0] == "appendicitis"
    assert rows[0][1].startswith("+")
    page.js("document.getElementById('explain-phrases').click()")
    page.wait("document.querySelectorAll('.why mark').length === 2")
    sound(page)


@NEEDS_BROWSER
def test_what_is_wrong_is_said_in_the_page(page: Page) -> None:
    page.js("document.getElementById('go').focus()")
    page.press("Enter")
    page.wait("!document.getElementById('error').hidden")
    assert page.js("document.getElementById('error').textContent") == "Type or paste a diagnosis first."
    assert page.js("document.activeElement.id") == "text"
    page.type("Jane Miller")
    page.press("Enter", ctrl=True)
    page.wait("document.getElementById('error').textContent.startsWith('Nothing is left')")
    assert page.js("document.getElementById('result').hidden")
    sound(page)


@NEEDS_BROWSER
def test_markup_in_a_text_stays_text(page: Page) -> None:
    page.media(prefers_reduced_motion="no-preference")
    fill_and_ask(page, "fracture <img src=x onerror=alert(1)> of the femur <script>alert(2)</script>")
    assert page.js("document.querySelectorAll('#result img, #result script').length") == 0
    assert page.js("document.getAnimations().length") > 0  # where motion is not unwelcome
    assert "<img src=x" in page.js("document.querySelector('.step .text').textContent")


@NEEDS_BROWSER
def test_dark_narrow_and_calm(page: Page) -> None:
    page.size(390, 844)
    page.media(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    fill_and_ask(page)
    assert page.js("document.documentElement.scrollWidth") == 390
    ground = "getComputedStyle(document.body).backgroundColor"
    night = page.js(ground)
    sound(page)
    page.js("document.getElementById('theme').focus()")
    page.press(" ")
    assert page.js("document.getElementById('theme').getAttribute('aria-pressed')") == "false"
    assert page.js(ground) != night
    page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    page.press("Enter")
    assert page.js(ground) == night


@NEEDS_BROWSER
def test_what_is_claimed_opens_and_closes(page: Page) -> None:
    page.js("document.getElementById('about-open').focus()")
    page.press("Enter")
    assert page.js("document.getElementById('about').open")
    assert "not a medical device" in page.js("document.getElementById('about').textContent").lower()
    sound(page)
    page.press("Escape")
    assert not page.js("document.getElementById('about').open")
    assert page.js("document.activeElement.id") == "about-open"


@NEEDS_BROWSER
def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    fill_and_ask(page)
    used = {"button", "textbox", "radio", "combobox", "link", "image", "img"}
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    assert {"button", "textbox", "radio", "combobox"} <= {role for role, _ in found}
    assert not [role for role, name in found if role in used and not name.strip()]


def test_the_ready_line_is_the_documented_one(web: Web) -> None:
    section = re.search(r"^## web\n(.*?)^## ", COMMANDS, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    assert set(web.ready) == set(re.findall(r"^\| `(\w+)`", section[1], flags=re.MULTILINE))
    assert web.ready["models"] == [LINEAR, HIDDEN]


def test_the_story_is_that_of_the_call(web: Web) -> None:
    """What the page is told, beside itself: sizes, the halves' sum, the answer; the same label under both schemes."""
    ckks, mpc = (web.ask("classify", scheme=scheme, model=LINEAR, text=TEXT) for scheme in ("ckks", "mpc"))
    assert ckks["answer"]["label"] == mpc["answer"]["label"] == "XI Digestive system"
    assert ckks["cleaned"]["left"] == "acute appendicitis with perforation"
    assert "".join(piece["text"] for piece in ckks["cleaned"]["pieces"]) == TEXT
    assert ckks["traffic"][0]["up"] > ckks["sizes"]["up"] > ckks["view"]["seen"][0]["bytes"] > 30_000
    for story in (ckks, mpc):
        assert story["view"]["searched"]["found"] == []
        assert story["embedding"]["unevenness"] > 5
        assert sum(bar["probability"] for bar in story["answer"]["bars"]) == pytest.approx(1)
        assert story["cost"]["plaintext"]["up"] > 3072
        assert all(0.5 < one["unevenness"] < 1.5 for one in story["view"]["seen"])
    assert mpc["view"]["joined"]["error"] < 1e-5
    assert [one["bytes"] for one in mpc["view"]["seen"]] == [3072, 3072]


def test_nothing_of_a_text_is_written(web: Web) -> None:
    canary = "zebrafishappendicitis"
    for scheme in ("ckks", "mpc"):
        web.ask("classify", scheme=scheme, model=LINEAR, text=f"{canary} with perforation")
    web.ask("explain", scheme="ckks", model=LINEAR, text=f"{canary} with perforation", units="words")
    files = [path for path in web.home.rglob("*") if path.is_file()]
    assert files  # the logs of what it started
    token = web.url.split("/")[3].encode()
    for path in files:
        data = path.read_bytes()
        assert canary.encode() not in data, path
        assert token not in data, path


def test_a_connection_that_cannot_be_read_and_a_server_that_ends(tmp_path: Path) -> None:
    """Under TLS sizes are told and nothing more; a recorder's own address is in no error."""
    (tmp_path / f"{LINEAR}.head").write_bytes((models.path() / f"{LINEAR}.head").read_bytes())

    def make(targets: Sequence[str]) -> Client:
        return Client(targets, model=LINEAR, timeout=5)

    with LocalServer(tmp_path) as server:
        unread = Connection(make, (server.address,), scheme="ckks", recorded=False)
        recorded = Connection(make, (server.address,), scheme="ckks", recorded=True)
        story = told(unread, unread.ask(TEXT), None)
        json.dumps(story, allow_nan=False)
        assert (story["view"]["seen"], story["traffic"], story["cost"]["plaintext"]) == ([], [], None)
        assert story["sizes"]["up"] > 30_000
        with pytest.raises(SettingsError):
            unread.plaintext()
    with pytest.raises(ServerUnavailable, match=server.address):
        recorded.ask(TEXT)
    for connection in (unread, recorded):
        connection.close()

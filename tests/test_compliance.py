"""docs/compliance.md names files and tests that exist, has every part of every control, and keeps to careful words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "compliance.md").read_text(encoding="utf-8")
CONTROLS = dict(re.findall(r"^### ([^\n]+)\n\n(.*?)(?=^##|\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))
WANTED = {
    *("(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)", "(b)", "(c)(1)", "(c)(2)", "(d)", "(e)(1)"),
    *("(e)(2)(i)", "(e)(2)(ii)", "(a)(1)(ii)(A)", "(a)(1)(ii)(D)", "(a)(5)(ii)(C)", "(a)(6)(ii)", "(a)(7)(ii)(A)"),
    *(f"Article {number}" for number in ("5(1)(c)", "5(1)(f)", "25", "28", "30", "32", "33", "35")),
}


def parts(body: str) -> dict[str, str]:
    return dict(re.findall(r"^- \*\*(\w+)\*\*: (.*?)(?=^- |\Z)", body, flags=re.DOTALL | re.MULTILINE))


def test_every_control_is_there() -> None:
    assert not [one for one in WANTED if not any(f"{title} ".startswith(f"{one} ") for title in CONTROLS)]


@pytest.mark.parametrize("title", CONTROLS)
def test_each_says_mechanism_place_test_and_what_remains(title: str) -> None:
    named = parts(CONTROLS[title])
    assert list(named) == ["Mechanism", "Where", "Test", "Yours"]
    places, tests = (re.findall(r"`([^`]+)`", named[part]) for part in ("Where", "Test"))
    assert places
    assert tests
    assert not [place for place in places if not (ROOT / place).is_file()]
    for test in tests:
        file, _, function = test.partition("::")
        assert file.startswith("tests/"), test
        assert (ROOT / file).is_file(), test
        assert not function or f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), test


@pytest.mark.parametrize(
    "file",
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.svg")],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_careful_words(file: Path) -> None:
    text = " ".join(file.read_text(encoding="utf-8").lower().split())
    assert not re.search(r"\b(hipaa|gdpr)[- ]?(compliant|certified)|\bis compliant\b|\bfully compliant\b", text)
    assert not re.search(r"embeddings? (is|are) anonym|anonymous embedding", text)

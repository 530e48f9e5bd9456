"""mkdocs reads the repository's documents as they stand; what it cannot do by itself is done here.

- Documents beside docs/ (SECURITY.md and others) are pages.
- A line that is a link with the title "include" is replaced by the text under the heading it leads to:
  `[Limits](../README.md#limits "include")`. In a viewer that knows nothing of this it stays a link.
- Links between documents lead to the page that holds them; those to other files of the repository become the file's name.
- The page of errors is made of the catalogue.
- The diagram that docs/mpc.md gives as text would take a script from elsewhere to draw: it is a picture here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from secure_infer.errors import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
BESIDE = {"security.md": "SECURITY.md", "architecture.md": "ARCHITECTURE.md", "contributing.md": "CONTRIBUTING.md"}
ERRORS = "reference/errors.md"
HOME = "README.md"
"""Not a page itself: pages include its sections, and index.md is what a link to the rest of it leads to."""

DIAGRAMS = {
    "mpc.md": "![The client sends each party one half. Party 0 tells party 1 the request and both exchange masked words, a round "
    "at a time; the dealer sent both their bundles before. Each party answers with its half, and the client adds them]"
    "(pictures/mpc-messages.svg)"
}

_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r'(!?)\[([^\[\]]*)\]\(([^()\s]+?)(#[^()\s]*)?(?:\s+"([^"]*)")?\)')
_INCLUDE = re.compile(r'^\[[^\[\]]*\]\(([^()\s]+)#([\w-]+)\s+"include"\)$', re.MULTILINE)
_HEADING = re.compile(r"^(#+) (.+)$")
_COMMENT = re.compile(r"^<!--.*?-->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    for page, document in BESIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / document)))
    files.append(File.generated(config, ERRORS, content=_errors()))
    included.cache_clear()
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    here = page.file.src_uri
    if here in DIAGRAMS:
        markdown = _MERMAID.sub(lambda _: DIAGRAMS[here], markdown)
    document = BESIDE.get(here, f"docs/{here}")
    link = _linker(here, files)
    parts, place = [], 0
    for found in _INCLUDE.finditer(markdown):
        source = posixpath.normpath(posixpath.join(posixpath.dirname(document), found[1]))
        parts += [
            _linked(markdown[place : found.start()], document, link),
            _linked(section(source, found[2]), source, link),
        ]
        place = found.end()
    return "".join([*parts, _linked(markdown[place:], document, link)])


def section(document: str, anchor: str) -> str:
    """What stands under a heading of a document, up to the next one of its level or above."""
    level, lines = 0, []
    for line, heading in _lines((ROOT / document).read_text(encoding="utf-8")):
        if heading and level and len(heading[1]) <= level:
            break
        if level:
            lines.append(line)
        elif heading and _anchor(heading[2]) == anchor:
            level = len(heading[1])
    if not level:
        raise PluginError(f"{document} has no heading #{anchor}, which is to be included")
    return "\n".join(lines).strip()


@cache
def included(files: Files) -> dict[str, str]:
    """ "README.md#limits" to the page that includes it."""
    found = {}
    for file in files.documentation_pages():
        document = BESIDE.get(file.src_uri, f"docs/{file.src_uri}")
        for one in _INCLUDE.finditer(file.content_string):
            source = posixpath.normpath(posixpath.join(posixpath.dirname(document), one[1]))
            found.setdefault(f"{source}#{one[2]}", file.src_uri)
    return found


def _linked(text: str, document: str, link: Callable[[re.Match[str], str], str]) -> str:
    """The text of `document` with each of its links, code blocks apart, as `link` makes it."""
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda found: link(found, document), _COMMENT.sub("", part))
        for part in _FENCE.split(text)
    )


def _linker(here: str, files: Files) -> Callable[[re.Match[str], str], str]:
    """Links as the page `here` writes them."""
    pages = {document: page for page, document in BESIDE.items()}

    def link(found: re.Match[str], document: str) -> str:
        picture, text, path, anchor = found[1], found[2], found[3], found[4] or ""
        if path.startswith("#"):  # the whole target is an anchor
            path, anchor = "", path
        if "://" in path or path.startswith("mailto:"):
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(document), path)) if path else document
        if f"{target}{anchor}" in included(files) and (target == HOME or (not path and target != f"docs/{here}")):
            page, anchor = included(files)[f"{target}{anchor}"], ""
        elif target == HOME:
            page, anchor = "index.md", ""
        else:
            page = pages.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if page and files.get_file_from_path(page) is not None:
            return f"{picture}[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"
        if (ROOT / target).exists():
            return text if text.strip("`") == target else f"{text} (`{target}`)"
        return found[0]  # mkdocs says what is wrong with it

    return link


def _errors() -> str:
    rows = [
        f"| `{reason}`<br>`{error.__name__}`<br>{error.status} | {' '.join((error.__doc__ or '').split())} |"
        for reason, error in sorted(CATALOGUE.items())
    ]
    return "\n".join(
        [
            "---\nhide: [toc]\n---",
            "# Errors",
            "",
            "Every error that a user can meet, by its stable reason. In Python each is a class of `secure_infer.errors`, under "
            "`SecureInferError`, with `reason`, `status`, `message` and `details` (public facts: sizes, names, limits). On the "
            "wire it is the gRPC status with the reason beside it, and arrives as the same class. Commands end their one line on "
            "stderr with the reason in brackets, and exit with status 1 (2 for `SETTINGS`).",
            "",
            "A message says what was got, what was expected and what to do. It never holds an input, an embedding, a logit or "
            "a key.",
            "",
            "| reason, class, gRPC status | when |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _lines(text: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Each line, and its heading where it is one; what looks like one in a code block is none."""
    code = False
    for line in text.splitlines():
        code ^= line.startswith("```")
        yield line, None if code else _HEADING.match(line)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")

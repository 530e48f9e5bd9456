"""How well de-identification finds what it should and spares what it must: seeded, synthetic, reproducible to the digit.

`generate` composes clinical-style sentences around packaged diagnosis texts and says where the identifying spans are.
Half of the name parts are held back from the shipped lists. Published figures: EVALUATION sentences, PUBLISHED_SEED.
"""

from __future__ import annotations

import datetime
import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from secure_infer_benchmarks.deidentification_cases import (
    DEVELOPMENT_NEGATIVES,
    EVALUATION,
    EVALUATION_NEGATIVES,
    HELD_OUT_FAMILY,
    HELD_OUT_GIVEN,
)
from secure_infer_client import samples
from secure_infer_client.text.deidentify import deidentify
from secure_infer_client.text.deidentify_vocabulary import vocabulary

PUBLISHED_SEED = samples.PUBLISHED_SEED
PUBLISHED_SIZE = 4000
HELD_OUT_SHARE = 0.5
"""Of the parts of names; the rest is drawn from the shipped list, each name as likely as any other."""

KINDS = {"date": "dates", "identifier": "identifiers", "contact": "contacts", "name": "names", "address": "addresses"}
_CONTACTS = ("phone", "email", "url", "ip address")
_STREETS = (
    "Oak",
    "Maple",
    "Station",
    "High",
    "Church",
    "Mill",
    "Queen Victoria",
    "Jefferson",
    "Elm Grove",
    "St. Mary's",
    "5th",
)
_TYPES = ("Street", "St", "Road", "Rd.", "Avenue", "Ave", "Lane", "Drive", "Blvd", "Court", "Close", "Crescent", "Way")
_TOWNS = (
    *(("Springfield", "IL 62704"), ("Leeds", "LS1 4AP"), ("Cambridge", "CB2 1TN"), ("Fort Worth", "TX 76102")),
    *(("Portland", "OR 97205-1234"), ("Stoke-on-Trent", "ST4 2DF"), ("Dayton", "Ohio 45402"), ("London", "SW1A 2AA")),
)
_DATES = [
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%B %Y",
    "%b %Y",
    "%d %B",
    "%B %d",
    "%A, %d %B %Y",
    "%m/%Y",
    "%Y/%m/%d",
    "%dth of %B %Y",
    "%b. %d, %Y",
]


@dataclass(frozen=True)
class Span:
    """[start, end) of a labelled text; `held_out` counts name parts that no shipped list holds, `parts` all of them."""

    kind: str
    start: int
    end: int
    held_out: int = 0
    parts: int = 0


@dataclass(frozen=True)
class Labelled:
    """A synthetic text, where it identifies somebody, and where its medical content stands."""

    text: str
    spans: tuple[Span, ...]
    medical: tuple[int, int]


def generate(n: int, seed: int, templates: Sequence[str] = EVALUATION) -> list[Labelled]:
    """`n` labelled texts of that seed."""
    generator = random.Random(seed)
    diagnoses = [sample.text for sample in samples.load()]
    return [_fill(generator.choice(templates), generator.choice(diagnoses), generator) for _ in range(n)]


def _fill(template: str, diagnosis: str, generator: random.Random) -> Labelled:
    text, spans, medical = "", [], (0, 0)
    for literal, kind, _, _ in string.Formatter().parse(template):
        text += literal
        if kind is None:
            continue
        value, label, held_out, parts = (diagnosis, "", 0, 0) if kind == "dx" else _value(kind, generator)
        if label:
            spans.append(Span(label, len(text), len(text) + len(value), held_out, parts))
        elif kind == "dx":
            medical = (len(text), len(text) + len(value))
        text += value
    return Labelled(text, tuple(spans), medical)


def _value(kind: str, generator: random.Random) -> tuple[str, str, int, int]:
    """(text, label, name parts held out, name parts) for a placeholder."""
    choice = generator.choice
    if kind in ("full", "first", "last", "initialed", "inverted"):
        return _name(kind, generator)
    if kind == "title":
        return choice(("Mr", "Mrs", "Ms", "Mr.", "Mrs.", "Miss", "Dr.")), "", 0, 0
    if kind == "date":
        day = datetime.date(1930, 1, 1) + datetime.timedelta(days=generator.randrange(35_000))
        return format(day, choice(_DATES)), "date", 0, 0
    if kind == "address":
        return _address(generator), "address", 0, 0
    if kind == "nhs":
        return _nhs(generator), "identifier", 0, 0
    letters = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=7))
    forms: dict[str, tuple[str, ...]] = {
        "phone": ("(212) 555-0###", "212-555-0###", "+1 312 555 0###", "+44 20 7946 0###", "020 7946 0###", "07700 900###",
                  "+49 30 1234####", "0161 496 0###", "1-800-555-0###", "415.555.0###"),
        "email": (f"{letters}.##@example.org", f"{letters}@mail.example.co.uk", f"{letters[0]}_{letters[1:]}@hospital.example"),
        "url": (f"https://portal.example.org/{letters}?id=###", f"www.{letters}.example.com", f"http://example.net/{letters}"),
        "mrn": ("########", "00######", f"{letters[:2].upper()}######", "###-###-##"),
        "ssn": ("123-4#-####", "457-5#-####"),
        "id": (f"{letters[0].upper()}-######", f"{letters[:3].upper()}#########", "##########", f"#####{letters[:2].upper()}##",
               f"{letters[:2].upper()}-###-####"),
    }  # fmt: skip
    label = "contact" if kind in ("phone", "email", "url") else "identifier"
    digits = (str(generator.randrange(10)) if character == "#" else character for character in choice(forms[kind]))
    return "".join(digits), label, 0, 0


@cache
def _listed() -> tuple[str, ...]:
    return tuple(sorted(name for name in vocabulary().names if len(name) > 2))


def _name(form: str, generator: random.Random) -> tuple[str, str, int, int]:
    def part(held_out: str) -> tuple[str, int]:
        if generator.random() < HELD_OUT_SHARE:
            return generator.choice(held_out.split()), 1
        return generator.choice(_listed()).capitalize(), 0

    (given, given_out), (family, family_out) = part(HELD_OUT_GIVEN), part(HELD_OUT_FAMILY)
    written = {
        "full": f"{given} {family}",
        "first": given,
        "last": family,
        "initialed": f"{given[0]}. {family}",
        "inverted": f"{family}, {given}",
    }[form]
    if form == "full" and generator.random() < 0.15:
        written = f"{given} {generator.choice(string.ascii_uppercase)}. {family}"
    out = {"first": given_out, "last": family_out, "initialed": family_out}.get(form, given_out + family_out)
    return written, "name", out, 2 if form in ("full", "inverted") else 1


def _address(generator: random.Random) -> str:
    street = f"{generator.randrange(1, 2000)} {generator.choice(_STREETS)} {generator.choice(_TYPES)}"
    town, code = generator.choice(_TOWNS)
    box = f"PO Box {generator.randrange(10, 9000)}, {town}, {code}"
    return generator.choice(
        (
            street,
            f"{street}, {town}",
            f"{street}, {town}, {code}",
            f"{street}, Apt {generator.randrange(1, 40)}B, {town}, {code}",
            box,
        )
    )


def _nhs(generator: random.Random) -> str:
    while True:
        digits = [generator.randrange(10) for _ in range(9)]
        check = (11 - sum(w * d for w, d in zip(range(10, 1, -1), digits, strict=True)) % 11) % 11
        if check < 10:
            text = "".join(map(str, [*digits, check]))
            return generator.choice((text, f"{text[:3]} {text[3:6]} {text[6:]}"))


def measure(
    n: int = PUBLISHED_SIZE, seed: int = PUBLISHED_SEED, templates: Sequence[str] = EVALUATION
) -> dict[str, Any]:
    """Recall, precision and false removals, as counts and rates.

    A span counts as removed only when every letter and digit of it is. A removal is right when it touches a labelled
    span and no medical content. A medical text counts as damaged when anything at all is removed from it.
    """
    spans: Counter[str] = Counter()
    found: Counter[str] = Counter()
    removals: Counter[str] = Counter()
    right: Counter[str] = Counter()
    damaged = 0
    for labelled in generate(n, seed, templates):
        removed = deidentify(labelled.text).removed
        covered = {i for removal in removed for i in range(removal.start, removal.end)}
        low, high = labelled.medical
        damaged += any(removal.start < high and low < removal.end for removal in removed)
        for span in labelled.spans:
            whole = all(i in covered for i in range(span.start, span.end) if labelled.text[i].isalnum())
            keys = [span.kind]
            if span.kind == "name":
                keys.append(
                    "name, listed"
                    if not span.held_out
                    else "name, in no list"
                    if span.held_out == span.parts
                    else "name, half"
                )
            for key in keys:
                spans[key] += 1
                found[key] += whole
        for removal in removed:
            kind = "contact" if removal.kind in _CONTACTS else removal.kind
            removals[kind] += 1
            touches = any(span.start < removal.end and removal.start < span.end for span in labelled.spans)
            right[kind] += touches and not (removal.start < high and low < removal.end)
    negatives = [
        text
        for text in (EVALUATION_NEGATIVES if templates is EVALUATION else DEVELOPMENT_NEGATIVES)
        .replace("\n", "|")
        .split("|")
        if text
    ]
    packaged = [sample.text for sample in samples.load()]
    changed = {
        "hard negatives": (sum(bool(deidentify(text).removed) for text in negatives), len(negatives)),
        "packaged ICD-10-CM texts": (sum(bool(deidentify(text).removed) for text in packaged), len(packaged)),
        "diagnoses inside the sentences": (damaged, n),
    }
    return {
        "seed": seed,
        "texts": n,
        "recall": {kind: _rate(found[kind], spans[kind]) for kind in sorted(spans)},
        "precision": {kind: _rate(right[kind], removals[kind]) for kind in KINDS if removals[kind]},
        "false_removals": {name: _rate(count, total) for name, (count, total) in changed.items()},
    }


def _rate(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "of": total, "rate": count / total if total else None}


def report(n: int = PUBLISHED_SIZE) -> dict[str, Any]:
    """The published measurement, ready for JSON."""
    return measure(n)


def suite(quick: bool) -> dict[str, Any]:
    """The published draw, quick or not."""
    return report()


def table(figures: dict[str, Any] | None = None) -> str:
    """The published measurement as Markdown."""
    figures = report() if figures is None else figures
    lines = ["| kind | spans | removed entirely | precision |", "| --- | --- | --- | --- |"]
    for kind, title in KINDS.items():
        recall, precision = figures["recall"][kind], figures["precision"][kind]
        lines.append(f"| {title} | {recall['of']:,} | {recall['rate']:.1%} | {precision['rate']:.1%} |")
        if kind == "name":
            for key, text in (
                ("name, listed", "every part in the shipped lists"),
                ("name, half", "one part of two"),
                ("name, in no list", "no part"),
            ):
                part = figures["recall"][key]
                lines.append(f"| names: {text} | {part['of']:,} | {part['rate']:.1%} | |")
    lines += ["", "| medical text | texts | something removed |", "| --- | --- | --- |"]
    for name, false in figures["false_removals"].items():
        lines.append(f"| {name} | {false['of']:,} | {false['count']} ({false['rate']:.2%}) |")
    return "\n".join(lines) + "\n"

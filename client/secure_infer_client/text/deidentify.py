"""Rule-based de-identification of clinical text, before it is embedded.

Removed: dates that hold a day or a month, phone numbers, e-mail addresses, URLs, IP addresses, identifiers (social
security, NHS and record numbers, labelled numbers such as "MRN 00482913", long digit strings), postal addresses and
names of people. Ages over 89 are given as 90, read as "90 or older" (45 CFR 164.514(b)(2), the HIPAA safe harbour).

The rules prefer precision: a dose, score, vertebra, code or eponym ("5 mg", "120/80", "C5-C6", "Z12.31", "Crohn's
disease") stays. What is removed leaves nothing behind: any placeholder word moves the embedding further than a gap
does. Misses happen; docs/deidentification.md says how often.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from secure_infer.errors import InvalidInput
from secure_infer_client.text import deidentify_addresses, deidentify_names, deidentify_patterns


@dataclass(frozen=True)
class Removal:
    """A span [start, end) of the original text, in characters. `text` is what stood there; it is kept out of `repr`."""

    kind: str
    start: int
    end: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class Deidentified:
    """The text that may be embedded, and what was taken out, in order of position."""

    text: str = field(repr=False)
    removed: tuple[Removal, ...] = ()


def deidentify(text: str) -> Deidentified:
    """`text` without what the rules find; text in which they find nothing comes back unchanged.

    The result may be empty when the text held nothing else. Every repetition in a rule is bounded, so the time taken is
    linear in the length of the text. Raises InvalidInput for what is not a str.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text: expected str, got {type(text).__name__}")
    found = _find(text)
    if not found:
        return Deidentified(text)
    pieces: list[str] = []
    position = 0
    for removal, replacement in found:
        pieces += [text[position : removal.start], replacement]
        position = removal.end
        if not replacement and text[position : position + 1] in (" ", ".", ",", ";", ":"):
            pieces[-2] = pieces[-2].rstrip(" ")  # no doubled space, and none left before punctuation
            if text[position] == ",":
                pieces[-2] = pieces[-2].rstrip(", ")
    left = "".join([*pieces, text[position:]]).strip().lstrip(",;: ")
    return Deidentified(left, tuple(removal for removal, _ in found))


def _find(text: str) -> list[tuple[Removal, str]]:
    """Removals with their replacements, by position, without overlaps."""

    def item(kind: str, start: int, end: int, replacement: str = "") -> tuple[Removal, str]:
        return Removal(kind, start, end, text[start:end]), replacement

    found = [item(*match) for match in deidentify_patterns.find(text)]
    found += [item("address", *span) for span in deidentify_addresses.find(text)]
    found = _without_overlaps(found)
    # Names last, around what is already taken: "seen by John Smith 12 Oak Street" is one of each.
    taken = [(removal.start, removal.end) for removal, _ in found]
    return _without_overlaps([*found, *(item("name", *span) for span in deidentify_names.find(text, taken))])


def _without_overlaps(found: Iterable[tuple[Removal, str]]) -> list[tuple[Removal, str]]:
    """By position; of two that overlap, the one whose rule comes first."""
    taken: list[tuple[Removal, str]] = []
    ends: list[int] = []
    starts: list[int] = []
    for item in found:
        index = bisect(starts, item[0].start)
        clear_left = index == 0 or ends[index - 1] <= item[0].start
        if clear_left and (index == len(starts) or item[0].end <= starts[index]):
            starts.insert(index, item[0].start)
            ends.insert(index, item[0].end)
            taken.insert(index, item)
    return taken

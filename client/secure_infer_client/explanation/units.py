"""The words or phrases of a text, which are left out in turn."""

from __future__ import annotations

from collections.abc import Callable

from secure_infer.errors import SettingsError

_BEFORE = """
a an and as at after before but by due during for from in into nor not of on or per the to under upon via with without
"""
_JOINING = frozenset(_BEFORE.split())
"""Words that begin a phrase and mean little without it."""

_ENDS = (",", ";", ":", ".", ")", "!", "?")
_BEGINS = ("(",)


def words(text: str) -> list[str]:
    """By white space."""
    return text.split()


def phrases(text: str) -> list[str]:
    """Runs of words that end at punctuation and begin with `of`, `with`, `due to` and the like.

    "Fracture of left femur, closed, due to a fall"
    -> ["Fracture", "of left femur,", "closed,", "due to a fall"]
    """
    found: list[list[str]] = []
    begun = True  # nothing but joining words so far
    for word in text.split():
        joins = word.lower().lstrip("(") in _JOINING
        if not found or (joins and not begun) or word.startswith(_BEGINS) or found[-1][-1].endswith(_ENDS):
            found.append([])
            begun = True
        found[-1].append(word)
        begun = begun and joins
    return [" ".join(phrase) for phrase in found]


UNITS: dict[str, Callable[[str], list[str]]] = {"words": words, "phrases": phrases}


def split(text: str, units: str) -> list[str]:
    """Raises SettingsError for a kind of units that there is not."""
    if units not in UNITS:
        raise SettingsError(f"units: expected {' or '.join(UNITS)}, got {units!r}")
    return UNITS[units](text)

"""Patterns of rules: `*` stands for any characters, none included; everything else for itself, case and all.

>>> matches("cn:ward-*", "cn:ward-7"), matches("cn:ward-*", "cn:Ward-7"), matches("*:others", "KeyService/X:others")
(True, False, True)
"""

from __future__ import annotations

from collections.abc import Iterable


def matches(pattern: str, text: str) -> bool:
    """Whether all of `text` is as `pattern` says. At most len(pattern) × len(text) steps: there is no backtracking, since
    taking each piece between two stars at its first place leaves the most for the ones that follow."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True


def any_matches(patterns: Iterable[str], text: str) -> bool:
    return any(matches(pattern, text) for pattern in patterns)

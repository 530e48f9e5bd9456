"""One colour a meaning, for light and dark: after Okabe and Ito (2008), darkened until each stands out from its ground.

Colour never speaks alone: every series has a marker or a pattern of its own and is named beside it. Graphical objects have
a contrast of at least 3 to the card they lie on, text 4.5 (WCAG 2.2, 1.4.3 and 1.4.11).
"""

from __future__ import annotations

# name: (light, dark)
COLOURS = {
    "paper": ("#f6f6f4", "#0e1116"),
    "card": ("#ffffff", "#161b22"),
    "sunk": ("#f0f1f3", "#1d242d"),
    "ink": ("#15181c", "#e9edf2"),
    "muted": ("#545c66", "#a6b0bb"),
    "line": ("#dcdfe3", "#2e3742"),
    "accent": ("#1b5fc0", "#7db5ff"),
    "blue": ("#0072b2", "#56b4e9"),
    "vermillion": ("#c4500a", "#f09a5a"),
    "green": ("#00805a", "#2cc295"),
    "purple": ("#9c4a7c", "#dd9cc3"),
    "grey": ("#69717b", "#98a2ad"),
}
SERIES = ("blue", "vermillion", "green", "purple", "grey")
LIGHT = {name: pair[0] for name, pair in COLOURS.items()}


def contrast(one: str, other: str) -> float:
    """By WCAG 2.2: from 1 to 21.

    >>> round(contrast("#000000", "#ffffff"))
    21
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

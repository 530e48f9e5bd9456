"""Explanations for a terminal and as a page: blue speaks for the label, orange against it; grey is within the error bound.

The two colours are told apart by every kind of colour vision, and each figure stands beside its bar.
"""

from __future__ import annotations

from html import escape

import numpy as np

from secure_infer_client.explanation.explanation import Explanation, Method

FOR, AGAINST = (27, 108, 198), (201, 98, 16)
SHOWN = 12
"""Units in a list, those of the largest attributions."""

_METHODS = {
    Method.OCCLUSION: "what the logit loses without each, asked under encryption",
    Method.EXACT: "what each adds to the logit, from published weights; nothing was sent",
}


def _strength(explanation: Explanation) -> list[float]:
    """-1 to 1 a unit, 0 for what is within the error bound."""
    shares = explanation.attributions
    largest = float(np.abs(shares).max(initial=0.0))
    return [float(share) / largest if largest and abs(share) > explanation.error_bound else 0.0 for share in shares]


def _largest(explanation: Explanation) -> list[int]:
    order = np.argsort(-np.abs(explanation.attributions), kind="stable")[:SHOWN]
    return sorted((int(place) for place in order), key=lambda place: -explanation.attributions[place])


def lines(explanation: Explanation, width: int, *, colour: bool) -> list[str]:
    """The text with its units shaded, where there is colour, and a bar for each of the largest attributions."""
    strengths = _strength(explanation)
    found = [f"{explanation.label}: logit {explanation.logit:.3f}; {_METHODS[explanation.method]}"]
    if colour:
        shaded = [_shaded(word, strength) for word, strength in zip(explanation.words, strengths, strict=True)]
        found += ["", " ".join(shaded), ""]
    places = _largest(explanation)
    longest = max((len(explanation.words[place]) for place in places), default=0)
    column = min(longest, width // 2)
    room = max(4, width - column - 10)
    for place in places:
        bar = ("█" if strengths[place] > 0 else "░") * round(abs(strengths[place]) * room)
        found.append(
            f"{_cut(explanation.words[place], column):<{column}} {explanation.attributions[place]:+7.3f} {bar}"
        )
    return found + _remarks(explanation)


def _shaded(word: str, strength: float) -> str:
    if not strength:
        return word
    red, green, blue = FOR if strength > 0 else AGAINST
    part = abs(strength)
    if part < 0.25:
        return f"\x1b[38;2;{red};{green};{blue}m{word}\x1b[0m"
    return (
        f"\x1b[48;2;{red};{green};{blue};97m{word}\x1b[0m"
        if part > 0.6
        else f"\x1b[1;38;2;{red};{green};{blue}m{word}\x1b[0m"
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _remarks(explanation: Explanation) -> list[str]:
    left_out = len(explanation.words) - SHOWN
    found = [f"{left_out} more, nearer to 0"] if left_out > 0 else []
    if explanation.method is Method.EXACT:
        return [*found, f"and {explanation.rest:+.3f} that belongs to none: the bias, and the marks at both ends"]
    return [*found, f"attributions within {explanation.error_bound:.1e} of 0 say nothing: encryption's error bound"]


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d7de; --for: 27 108 198; --against: 201 98 16; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; } }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; } p.text { font-size: 1.15rem; line-height: 2.1; }
mark { color: inherit; border-radius: .25rem; padding: .15rem .2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .2rem .5rem .2rem 0; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } td.bar { width: 45%; }
td.bar span { display: block; height: .8rem; border-radius: .2rem; } small { opacity: .75; }
"""


def fragment(explanation: Explanation) -> str:
    """The marked text and the table, for a page that has the styles."""
    strengths = _strength(explanation)
    marked = " ".join(
        _marked(word, strength, float(share))
        for word, strength, share in zip(explanation.words, strengths, explanation.attributions, strict=True)
    )
    rows = "".join(_row(explanation, place, strengths[place]) for place in _largest(explanation))
    remarks = "".join(f"<p><small>{escape(remark)}</small></p>" for remark in _remarks(explanation))
    return f"<p class='text'>{marked}</p><table>{_HEADER}<tbody>{rows}</tbody></table>{remarks}"


_HEADER = "<thead><tr><th>text</th><th>adds</th><th>for (blue), against (orange)</th></tr></thead>"


def _row(explanation: Explanation, place: int, strength: float) -> str:
    bar = f"width:{abs(strength):.0%};background:rgb(var({_name(strength)}))"
    return (
        f"<tr><td>{escape(explanation.words[place])}</td><td class='number'>{explanation.attributions[place]:+.3f}</td>"
        f"<td class='bar'><span style='{bar}'></span></td></tr>"
    )


def html(explanation: Explanation) -> str:
    """One page that loads nothing, in light and dark."""
    title = f"{explanation.label}: logit {explanation.logit:.3f}"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{escape(_METHODS[explanation.method].capitalize())}.</p>{fragment(explanation)}</html>\n"
    )


def _name(strength: float) -> str:
    return "--for" if strength > 0 else "--against"


def _marked(word: str, strength: float, share: float) -> str:
    shown = escape(word)
    if not strength:
        return f"<span title='{share:+.3f}'>{shown}</span>"
    shade = f"background:rgb(var({_name(strength)}) / {0.15 + 0.45 * abs(strength):.2f})"
    return f"<mark title='{share:+.3f}' style='{shade}'>{shown}</mark>"

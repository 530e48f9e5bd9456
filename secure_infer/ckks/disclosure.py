"""What public layers and each kind of plan mean for privacy, in a line each; SECURITY.md has the claims and their attacks."""

from __future__ import annotations

from collections.abc import Sequence

from secure_infer.ckks.plan import Privacy

_NOT_HIDDEN = "input-private: the model is not hidden from the key holder, who can divide it out of one answer"

_BOTH_PRIVATE = {
    "coefficient": "answers are sums of the weights: about as many of them as there are inputs give an affine head away",
    "monomials": "malformed inputs read the function, not its layers; at most about as many answers as monomials give it away",
    "slots": "malformed slots read sums inside hidden layers, whatever the flood: only a limit on queries bounds that",
    "batch": "the model is hidden from key holders who made all their keys honestly, and from no others",
}


def of_kind(kind: str, privacy: Privacy) -> str:
    """What a key holder can learn of the model through plans of that kind."""
    return _NOT_HIDDEN if privacy is Privacy.INPUT_PRIVATE else _BOTH_PRIVATE[kind]


def of_layers(kinds: Sequence[str], public: int) -> str:
    """What the leading `public` of a head's layers, given by their kinds, mean.

    of_layers(["linear", "square", "linear"], 1) is "layer 1 (linear): public, every client gets it and evaluates it;
    hidden: layers 2 to 3 (square, linear); the less is hidden, the fewer answers give it away".
    """
    if not public:
        return f"no layer is public; hidden: {_span(kinds, 0)}"
    them = "it" if public == 1 else "them"
    shown = f"{_span(kinds[:public], 0)}: public, every client gets {them} and evaluates {them}"
    if public == len(kinds):
        return f"{shown}; nothing is left to hide"
    return f"{shown}; hidden: {_span(kinds[public:], public)}; the less is hidden, the fewer answers give it away"


def _span(kinds: Sequence[str], before: int) -> str:
    first, last = before + 1, before + len(kinds)
    return f"layer{'' if first == last else 's'} {first}{'' if first == last else f' to {last}'} ({', '.join(kinds)})"

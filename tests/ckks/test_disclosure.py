"""What is said of privacy names every layer once and every kind of plan."""

from __future__ import annotations

import pytest

from secure_infer.ckks import disclosure
from secure_infer.ckks.plan import Privacy


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        (0, "no layer is public; hidden: layers 1 to 3 (linear, square, linear)"),
        (1, "layer 1 (linear): public, every client gets it and evaluates it; hidden: layers 2 to 3 (square, linear)"),
        (
            2,
            "layers 1 to 2 (linear, square): public, every client gets them and evaluates them; hidden: layer 3 (linear)",
        ),
        (
            3,
            "layers 1 to 3 (linear, square, linear): public, every client gets them and evaluates them; nothing is left",
        ),
    ],
)
def test_layers(public: int, expected: str) -> None:
    assert disclosure.of_layers(["linear", "square", "linear"], public).startswith(expected)


@pytest.mark.parametrize("kind", ["coefficient", "monomials", "slots", "batch"])
def test_kinds(kind: str) -> None:
    assert "not hidden" in disclosure.of_kind(kind, Privacy.INPUT_PRIVATE)
    assert "not hidden" not in disclosure.of_kind(kind, Privacy.BOTH_PRIVATE)

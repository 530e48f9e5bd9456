"""What passed a socket while one text was classified, beside what only the client has; and lines for a reader."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer_client import samples
from secure_infer_client.prediction import Prediction

SHOWN = 8
"""Texts in the table; the last is the one whose bytes are recorded."""
_WIDTH = 58
_HEX = 160


@dataclass(frozen=True)
class Seen:
    """up, down: the bytes that passed. vectors: what else to search for, as bytes of consecutive numbers, by name."""

    text: str
    embedding: NDArray[np.float64]
    up: bytes
    down: bytes
    vectors: Mapping[str, NDArray[np.uint64]]

    def leaks(self) -> list[str]:
        """Which of text, words and numbers occur in the bytes up; expected none. Numbers are searched for in pairs."""
        words = [word for word in self.text.split() if len(word) > 4]
        found = [word for word in [self.text, *words] if word.encode() in self.up]
        forms = {f"embedding as {kind}": self.embedding.astype(kind) for kind in ("<f4", "<f8")}
        for name, values in {**forms, **self.vectors}.items():
            found += [name] * any(values[i : i + 2].tobytes() in self.up for i in range(len(values) - 1))
        return found


def say(quiet: bool, text: str = "") -> None:
    if not quiet:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def table(texts: Sequence[samples.Sample], shown: Sequence[Prediction]) -> None:
    lines = ["", f"{'text (stays on the client)':<{_WIDTH}}  {'chapter':<38} {'confidence':>10}  correct"]
    for sample, p in zip(texts, shown, strict=False):
        text = sample.text if len(sample.text) <= _WIDTH else sample.text[: _WIDTH - 1] + "…"
        mark = "yes" if p.label == sample.label else f"no: {sample.label}"
        lines.append(f"{text:<{_WIDTH}}  {p.label[:38]:<38} {p.probability:>10.1%}  {mark}")
    say(False, "\n".join(lines))


def only_the_client_has(seen: Seen) -> list[str]:
    return [
        "",
        "what only the client has:",
        f"  text       {seen.text}",
        f"  embedding  {in_numbers(seen.embedding)} … ({len(seen.embedding)} numbers)",
    ]


def in_numbers(row: NDArray[np.float64]) -> str:
    return " ".join(f"{v:+.4f}" for v in row[:8])


def tail(data: bytes) -> bytes:
    """As much of the end as is shown."""
    return data[-_HEX:]


def in_hex(data: bytes) -> list[str]:
    """Bytes in rows of hex digits."""
    hexed = data.hex(" ", 4)
    return [f"  {hexed[i : i + 90]}" for i in range(0, len(hexed), 90)]

"""Hostile JSON and text out of valid ones, as `mutations` does for messages."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from secure_infer_benchmarks.stress.mutations import Material, noisy

ODD: list[Any] = [
    *(None, True, -1, 0, 1 << 70, 1e308, float("inf"), float("nan"), -0.0, 3.5),
    *("", "x", "ff" * 16, "\ud800", "\0", "9" * 5000, "x" * 300, [], {}, [[]], {"a": 1}, [1, 2]),
]
WORDS = (
    "true",
    "[",
    "]",
    "{",
    "}",
    "=",
    '"',
    '"""',
    "\n",
    "[[a]]",
    "a.b.c = 1",
    "# ",
    "1979-05-27",
    "0x7f",
    "nan",
    "\\u0000",
    "=",
)


def json_changed(rng: Random, data: bytes, material: Material) -> bytes:
    """JSON with a value replaced, a key gone, a value one level deeper, nested beyond reason, or no JSON at all."""
    if rng.random() < 0.3:
        return noisy(rng, data, material)
    if rng.random() < 0.04:
        return rng.choice((b"[", b'{"a":')) * rng.choice((10, 900, 2000, 20_000))
    value = _changed(rng, json.loads(data))
    return json.dumps(value, sort_keys=rng.random() < 0.8).encode()


def _changed(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        draw = rng.random()
        if draw < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if draw < 0.15:
            return value | {"more": rng.choice(ODD)}
        return value | {key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        changed = [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
        return rng.choice((changed, changed, value[:at], value * 2, value + value[at : at + 1]))
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value << 40, float(value), str(value)))
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice((value[:-1], value.upper(), value + "0", value[::-1]))
    return rng.choice(ODD)


def text_changed(rng: Random, data: bytes, material: Material) -> bytes:
    """Lines dropped, doubled, swapped, or with words where they do not belong."""
    if rng.random() < 0.4:
        return noisy(rng, data, material)
    lines = data.decode().splitlines()
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(5)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(other, lines[at])
    elif change == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        place = rng.randrange(len(lines[at]) + 1)
        word = rng.choice(WORDS) * rng.choice((1, 1, 1, 3, 1000))
        lines[at] = lines[at][:place] + word + lines[at][place + rng.randrange(4) :]
    return "\n".join(lines).encode("utf-8", "surrogatepass")

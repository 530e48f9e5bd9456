"""Random ring elements for CrypTen, from the session's keyed streams; functions carry CrypTen's names.

CrypTen's own draw from torch generators, whose seeds have 32 bits that count: one party can search for the other's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from secure_infer.errors import ForbiddenRandomness
from secure_infer.mpc.crypten import session
from secure_infer.mpc.crypten.tensors import from_words


@dataclass(frozen=True)
class StreamName:
    """In the place of a `torch.Generator`: names a stream of whatever session draws."""

    name: str


def generate_random_ring_element(
    size: Any, ring_size: int = 1 << 64, generator: StreamName | None = None, device: Any = None
) -> Any:
    """Uniform int64 tensor of `size` (an int or a shape), from this party's own stream unless one is named."""
    return generate_kbit_random_tensor(size, ring_size.bit_length() - 1, generator, device)


def generate_kbit_random_tensor(
    size: Any, bitlength: int | None = None, generator: StreamName | None = None, device: Any = None
) -> Any:
    """Numbers of `bitlength` uniform bits (64 when None), int64. Raises ForbiddenRandomness for a generator not ours."""
    if not isinstance(generator, StreamName | None):
        raise ForbiddenRandomness("crypten: a generator that is no keyed stream was handed over")
    shape = (size,) if isinstance(size, int) else tuple(size)
    stream = session.current().streams[generator.name if generator else "local"]
    words = stream.words(math.prod(shape)).reshape(shape)
    if bitlength not in (None, 64):
        words = words & np.uint64((1 << bitlength) - 1)
    return from_words(words)

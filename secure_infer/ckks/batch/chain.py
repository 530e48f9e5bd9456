"""Modulus chains for batches: as few primes as hold the bits, of widths that travel without waste."""

from __future__ import annotations

import math

from secure_infer.ckks import seal
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, MIN_PRIME_BITS, Parameters
from secure_infer.errors import UnsupportedHead

SPECIAL_BITS = 24
"""Of the special prime. Key switching adds its noise beside a product's, far above it: the prime need not be large."""


def sizes(degree: int, bits: float, largest: int, least_first: float = 0.0, *, primes: int = 1) -> list[int]:
    """Widths of the fewest primes (at least `primes`) of at most `largest` bits that hold `bits` bits together."""
    count = max(primes, math.ceil(bits / largest))
    least = max(MIN_PRIME_BITS + 1, math.ceil(math.log2(degree)) + 6)
    # Residues travel in a multiple of four bits: what they occupy anyway serves as precision.
    each, longer = divmod(max(-(-math.ceil(bits) // 4), count * -(-least // 4)), count)
    found = [4 * each + 4 * (index < longer) for index in range(count)]
    found[0] = max(found[0], math.ceil(least_first))
    return found


def chain(degree: int, widths: list[int], bits: float, largest: int, least_first: float = 0.0) -> Parameters:
    """The chain of primes of these widths, the first one narrowed where the ring has no room for all of it.

    Raises UnsupportedHead where `bits` bits do not fit at 128-bit security, or a prime is beyond `largest` bits.
    """
    room = MAX_MODULUS_BITS[degree] - (SPECIAL_BITS if len(widths) > 1 else 0)
    if sum(widths) > room:
        widths = [min(widths[0], room - sum(widths[1:])), *widths[1:]]
    if max(widths) > largest or sum(widths) < bits or widths[0] < max(MIN_PRIME_BITS + 1, least_first):
        raise UnsupportedHead(
            f"N={degree}: {room} bits of data modulus in primes of {largest}, needs {math.ceil(bits)}"
        )
    return seal.parameters(degree, tuple(widths), SPECIAL_BITS if len(widths) > 1 else None)

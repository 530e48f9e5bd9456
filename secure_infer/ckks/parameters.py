"""Ring degree and modulus chain, checked at construction; nothing below 128 bits can be made.

Largest total log2(q), special prime included, for a ternary secret and 128-bit classical security: Bossuat et al.,
"Security Guidelines for Implementing Homomorphic Encryption" (2024), table 5.2. SEAL's own defaults are looser.
"""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.errors import PlanRefused

MAX_MODULUS_BITS = {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}
"""N -> bits of the whole chain, at 128-bit classical security."""

SECURITY_BITS = 128
MAX_PRIME_BITS = 60
MIN_PRIME_BITS = 20


@dataclass(frozen=True)
class Parameters:
    """A CKKS ring Z_q[X]/(X^N + 1).

    degree: N. data_primes: the primes that carry data, first one last to be dropped. special_prime: the prime that
    SEAL appends to every chain of two or more; it carries no data but counts for security. A chain of one has none.
    """

    degree: int
    data_primes: tuple[int, ...]
    special_prime: int | None = None

    def __post_init__(self) -> None:
        if self.degree not in MAX_MODULUS_BITS:
            raise PlanRefused(f"ring degree: expected one of {sorted(MAX_MODULUS_BITS)}, got {self.degree}")
        if not self.data_primes:
            raise PlanRefused("modulus chain: expected at least one data prime")
        if (self.special_prime is None) != (len(self.data_primes) == 1):
            raise PlanRefused(
                f"modulus chain: {len(self.data_primes)} data primes need a special prime exactly when several"
            )
        if len(set(self.primes)) != len(self.primes):
            raise PlanRefused("modulus chain: expected distinct primes")
        for prime in self.primes:
            if not MIN_PRIME_BITS <= prime.bit_length() <= MAX_PRIME_BITS or prime % (2 * self.degree) != 1:
                raise PlanRefused(
                    f"modulus chain: {prime} is not a {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bit prime = 1 mod 2N"
                )
        if self.total_bits > MAX_MODULUS_BITS[self.degree]:
            raise PlanRefused(
                f"modulus chain: {self.total_bits} bits at N = {self.degree} is below 128-bit security; "
                f"expected at most {MAX_MODULUS_BITS[self.degree]}"
            )

    @property
    def primes(self) -> tuple[int, ...]:
        """The whole chain, special prime last: the level at which keys live."""
        return self.data_primes if self.special_prime is None else (*self.data_primes, self.special_prime)

    @property
    def total_bits(self) -> int:
        return sum(prime.bit_length() for prime in self.primes)

    @property
    def data_modulus(self) -> int:
        product = 1
        for prime in self.data_primes:
            product *= prime
        return product

    def __str__(self) -> str:
        special = "" if self.special_prime is None else f"+{self.special_prime.bit_length()}"
        return f"N={self.degree} [{','.join(str(p.bit_length()) for p in self.data_primes)}]{special}"

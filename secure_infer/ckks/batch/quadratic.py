"""The server's half for heads with one hidden layer of quadratics: products of residues between two matrix products.

The head is y_k = sum_h v_kh (w_h·x)² + m_k·x + b_k. A slot holds x_A + i x_B, so z_h = w_h·(x_A + i x_B) = a + i b, and with
the conjugate z̄ the real and imaginary parts are squared apart:

    u = z + z̄ = 2a,   v = z - z̄ = 2ib,   u² - i v² = 4 (a² + i b²)

z = c0 + c1·s is held under s, z̄ = σ(c0) + σ(c1)·σ(s) under the conjugate secret: nothing is switched to form it. The sums
over h of the products are taken part by part, over the basis 1, s, s², σ(s), σ(s)², s·σ(s), and the K outputs alone are
switched back to s (`keys`); so hidden units cost no key switch and their squares carry no noise of one.

In NTT form conjugation is a reversal: place i and place N-1-i hold conjugate values, X^(N/2) = i is one number ι in the
first half of the places and -ι in the second. With L for place i and R for place N-1-i, i in the first half, all parts at
both places are combinations of nine products:

    (c0L ± c0R)²,  c0L·c1L,  c0L·c1R,  c0R·c1L,  c0R·c1R,  c1L²,  c1R²,  c1L·c1R
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.ckks import seal
from secure_infer.ckks.batch.answer import AnswerWriter
from secure_infer.ckks.batch.evaluator import Evaluation, Sums, Work
from secure_infer.ckks.batch.gemm import (
    Accumulator,
    Floats,
    Integers,
    Matrix,
    canonical,
    centre,
    chunks,
    multiply,
    scale,
)
from secure_infer.ckks.batch.keys import PARTS, switched
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.residues import Residues
from secure_infer.errors import InternalFault

_COLUMNS = 256
_SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True, eq=False)
class Form:
    """Integers of one sum of squares over n variables; all int64.

    hidden: (units, n). output: (K, units), or None: every unit's square is an output. linear: (K, n), multiplied by `lift`
    so that it has the scale of the squares; None when there are no linear terms.
    """

    hidden: Integers
    output: Integers | None
    linear: Integers | None
    lift: int

    @property
    def rows(self) -> Integers:
        """What multiplies the variables: hidden units, then linear terms."""
        return self.hidden if self.linear is None else np.concatenate([self.hidden, self.linear])

    @property
    def outputs(self) -> int:
        return len(self.hidden if self.output is None else self.output)


@dataclass(frozen=True, eq=False)
class QuadraticProgram:
    """A head compiled for a plan; the server's alone. bias: (K,), in logits.

    deeper: a second form, over the outputs of the first and, where `carried`, its units before their squares; None for
    heads of one hidden layer of quadratics. Evaluated at `plan.level`.
    """

    plan: BatchPlan
    form: Form
    bias: Floats
    deeper: Form | None = None
    carried: bool = False

    def evaluation(self) -> Evaluation:
        """A new batch."""
        return _QuadraticEvaluation(self)

    @property
    def memory(self) -> int:
        """Bytes that one evaluation takes at most, about."""
        parameters, level = self.plan.parameters, self.plan.level
        primes, degree = parameters.data_primes, parameters.degree
        first = Sums.bytes(self.form.rows, primes, degree) + 8 * self.form.outputs * PARTS * len(primes) * degree
        if self.deeper is None:
            return first
        # The first form's products live on while the second form's sums are filled.
        second = Sums.bytes(self.deeper.rows, primes[:level], degree) + 16 * len(self.form.rows) * level * degree
        return first + second + 8 * self.deeper.outputs * PARTS * level * degree


def imaginary_units(ring: seal.Ring) -> list[int]:
    """ι for each data prime: what X^(N/2) is in the first half of the places; raises InternalFault elsewhere than in SEAL."""
    degree, primes = ring.parameters.degree, ring.parameters.data_primes
    monomial = np.zeros(degree, np.int64)
    monomial[degree // 2] = 1
    found = []
    for row, prime in zip(ring.ntt(monomial), primes, strict=True):
        unit = int(row[0])
        if (row[: degree // 2] != unit).any() or (row[degree // 2 :] != prime - unit).any():
            raise InternalFault("SEAL orders its transform in an unknown way; this version supports tenseal 0.3")
        found.append(unit)
    return found


class _QuadraticEvaluation(Evaluation):
    def __init__(self, program: QuadraticProgram) -> None:
        super().__init__(program.plan, program.form.rows, AnswerWriter(program.plan, program.bias), _SHARES)
        self._program = program
        self._ring = seal.ring(program.plan.parameters)
        self._units = imaginary_units(self._ring)

    def _products(self, keys: Sequence[seal.RelinKeys]) -> Work:
        deeper = self._program.deeper
        if deeper is None:
            return (yield from self._squares(self._program.form, self._sums, (0.0, 1.0)))
        sums = yield from self._variables(deeper, keys)
        return (yield from self._squares(deeper, sums, (0.75, 1.0)))

    def _variables(self, deeper: Form, keys: Sequence[seal.RelinKeys]) -> Generator[None, None, Sums]:
        """The first form's outputs, switched and with primes dropped, multiplied by the second form's rows."""
        parameters, level = self.plan.parameters, self.plan.level
        primes, degree = parameters.data_primes[:level], parameters.degree
        products = yield from self._squares(self._program.form, self._sums, (0.0, 0.5))
        units = len(self._program.form.hidden) if self._program.carried else 0
        carried = np.empty((units, 2, level, degree), np.uint64)
        for index, (total, prime) in enumerate(zip(self._sums.by_prime, primes, strict=False)):
            for half in range(2 if units else 0):
                columns = slice(half * degree, (half + 1) * degree)
                carried[:, half, index] = canonical(total.result(slice(0, units), columns), prime)
        self._sums.by_prime.clear()
        sums = Sums(deeper.rows, primes, degree)
        for parts in products:
            sums.add(self._dropped(parts, keys))
            self._reached(0.5 + 0.25 * sums.next / len(products))
            yield
        for ciphertext in carried:
            sums.add(ciphertext)
        return sums

    def _dropped(self, parts: Residues, keys: Sequence[seal.RelinKeys]) -> Residues:
        if not parts.any():  # all weights zero: SEAL refuses such a ciphertext
            return parts[:2, : self.plan.level]
        ciphertext = switched(self._ring, parts, keys)
        self._ring.drop(ciphertext, self.plan.level)
        return self._ring.residues(ciphertext)

    def _squares(self, form: Form, sums: Sums, reached: tuple[float, float]) -> Work:
        """The form's outputs (K, parts, primes, N) from its rows' products with the variables.

        reached: parts of all products made before and after.
        """
        primes, degree = self.plan.parameters.data_primes[: len(sums.by_prime)], self.plan.parameters.degree
        products = np.empty((form.outputs, PARTS, len(primes), degree), np.uint64)
        for index, (total, prime) in enumerate(zip(sums.by_prime, primes, strict=True)):
            output = None if form.output is None else Matrix(form.output, prime)
            for left in chunks(degree // 2, _COLUMNS):
                right = slice(degree - left.stop, degree - left.start)
                nine = self._nine(total, len(form.hidden), output, left, right, prime)
                for part, (at_left, at_right) in enumerate(_parts(nine, self._units[index], prime)):
                    products[:, part, index, left] = canonical(at_left, prime)
                    products[:, part, index, right] = canonical(at_right, prime)[:, ::-1]
                made = (index + left.stop / (degree // 2)) / len(primes)
                self._reached(reached[0] + (reached[1] - reached[0]) * made)
                yield
            if form.linear is not None:
                rows = slice(len(form.hidden), len(form.hidden) + form.outputs)
                _add_lifted(total, rows, form.lift, products[:, :2, index], prime)
        return products

    def _nine(
        self, total: Accumulator, hidden: int, output: Matrix | None, left: slice, right: slice, prime: int
    ) -> list[Integers]:
        """The nine products of all hidden units in these places, summed up for each output: 9 times (K, places)."""
        degree, units = self.plan.parameters.degree, slice(0, hidden)
        c0l, c1l = (total.result(units, _moved(left, half * degree)) for half in range(2))
        c0r, c1r = (total.result(units, _moved(right, half * degree))[:, ::-1] for half in range(2))
        even, odd = centre(c0l + c0r, prime), centre(c0l - c0r, prime)
        pairs = [
            (even, even),
            (odd, odd),
            (c0l, c1l),
            (c0l, c1r),
            (c0r, c1l),
            (c0r, c1r),
            (c1l, c1l),
            (c1r, c1r),
            (c1l, c1r),
        ]
        squares = (multiply(a, b, prime) for a, b in pairs)
        return list(squares) if output is None else [output @ square for square in squares]


def _add_lifted(total: Accumulator, rows: slice, lift: int, products: Residues, prime: int) -> None:
    """Adds lift times these rows' sums to both halves of products (K, 2, N)."""
    degree = products.shape[2]
    for half in range(2):
        for part in chunks(degree):
            lifted = scale(total.result(rows, _moved(part, half * degree)), lift, prime)
            both = products[:, half, part].astype(np.int64) + lifted
            products[:, half, part] = canonical(centre(both, prime), prime)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _parts(sums: list[Integers], unit: int, prime: int) -> list[tuple[Integers, Integers]]:
    """Of the nine sums, the six parts of u² - i v² at the left and the right place."""
    even, odd, l0l1, l0r1, r0l1, r0r1, l1l1, r1r1, l1r1 = sums
    minus, plus = 1 - unit, 1 + unit

    def combined(*terms: tuple[int, Integers]) -> Integers:
        return centre(np.sum([scale(values, factor, prime) for factor, values in terms], axis=0), prime)

    return [
        (combined((1, even), (-unit, odd)), combined((1, even), (unit, odd))),
        (combined((2 * minus, l0l1), (2 * plus, r0l1)), combined((2 * minus, l0r1), (2 * plus, r0r1))),
        (combined((minus, l1l1)), combined((plus, r1r1))),
        (combined((2 * plus, l0r1), (2 * minus, r0r1)), combined((2 * plus, l0l1), (2 * minus, r0l1))),
        (combined((minus, r1r1)), combined((plus, l1l1))),
        (combined((2 * plus, l1r1)), combined((2 * minus, l1r1))),
    ]

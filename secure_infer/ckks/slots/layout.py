"""Where things lie in slots: the client's input, the diagonals of weights, and what their rounding makes of the weights.

Plaintexts are integer polynomials, so slots carry rounded weights. What the server then evaluates is exactly the network
of those rounded weights, which is read back here: the error bound rests on it and not on an estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.embedding import Slots, roots, to_coefficients, to_slots
from secure_infer.ckks.slots.plan import SlotPlan

Floats = NDArray[np.float64]


def column_of(slots: int, period: int, parts: int, shifts: int) -> NDArray[np.int64]:
    """The column, within a ciphertext, of each slot (n,)."""
    s = np.arange(slots)
    return np.asarray((s % period + shifts * (s // period % parts)) % (shifts * parts))


def pack_input(plan: SlotPlan, x: Floats) -> NDArray[np.int64]:
    """One row x (d,), already held to the contract, as integer polynomials (ciphertexts, N)."""
    # The first ceil(d/2) features are real parts, the others imaginary ones.
    middle = -(-plan.features // 2)
    u = np.zeros(plan.inputs * plan.columns, np.complex128)
    u[:middle] = x[:middle]
    u[: plan.features - middle] += 1j * x[middle:]
    index = column_of(plan.slots, plan.period, plan.parts, plan.shifts)
    scaled = [to_coefficients(block[index]) * plan.input_scale for block in u.reshape(plan.inputs, plan.columns)]
    return np.rint(np.stack(scaled)).astype(np.int64)


def complex_columns(weight: Floats, columns: int) -> Slots:
    """Weights (units, d) for complex columns (units, columns): Re of twice their product with u is W x."""
    units, features = weight.shape
    middle = -(-features // 2)
    found = np.zeros((units, columns), np.complex128)
    found[:, :middle] = weight[:, :middle] / 2
    found[:, : features - middle] -= 0.5j * weight[:, middle:]
    return found


def real_weights(columns: Slots, features: int) -> Floats:
    """The inverse of `complex_columns`: weights (units, d)."""
    middle = -(-features // 2)
    return np.concatenate([2 * columns.real[:, :middle], -2 * columns.imag[:, : features - middle]], axis=1)


class Diagonals:
    """The extended diagonals of one matrix (units, columns), complex or real, as rounded integer polynomials.

    inputs, parts, shifts: as in the plan. babies: rotations made of the input; the others are made of sums.
    polynomials: float64 (inputs, shifts, N), integers, not all zero. effective: the matrix (period, columns) that they
    carry, complex and with rounding errors in the padding rows too.
    """

    def __init__(
        self, matrix: Slots, *, slots: int, period: int, inputs: int, parts: int, shifts: int, babies: int, scale: float
    ) -> None:
        columns = shifts * parts
        padded = np.zeros((period, inputs * columns), np.complex128)
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        rows, column = np.arange(slots) % period, column_of(slots, period, parts, shifts)
        served = [[c * columns + np.roll(column, -a) for a in range(shifts)] for c in range(inputs)]
        self.polynomials = np.array(
            [[np.rint(to_coefficients(padded[rows, at]) * scale) for at in row] for row in served]
        )
        if not self.polynomials.any():
            self.polynomials[0, 0, 0] = 1.0  # SEAL refuses a product that is zero
        self.effective = np.zeros_like(padded)
        first = slice(0, period * parts)  # the slots beyond repeat these
        for c in range(inputs):
            for a in range(shifts):
                carried = to_slots(self.polynomials[c, a])
                self.effective[rows[first], served[c][a][first]] = carried[first] / scale
                if a >= babies:  # what is summed before a giant step moves with it
                    self.polynomials[c, a] = np.rint(to_coefficients(np.roll(carried, a - a % babies)))


def output_polynomials(plan: SlotPlan, terms: Floats, product: int) -> list[Slots]:
    """For one product, the slots (n,) of a plaintext for each power: the sum over its rows k of terms[k, h, power] zeta^p_k.

    terms: (K, period, degree + 1). Slot s belongs to unit h = s mod period; zeta is the slot's point.
    """
    unit = np.arange(plan.slots) % terms.shape[1]
    found = []
    for power in range(terms.shape[2]):
        total = np.zeros(plan.slots, np.complex128)
        for t, k in enumerate(plan.rows(product)):
            total += terms[k, unit, power] * roots(plan.parameters.degree, plan.position(t))
        found.append(total)
    return found


def carried_terms(plan: SlotPlan, slots: Slots, product: int, period: int) -> Floats:
    """The inverse of `output_polynomials` for one power: what rounded slots (n,) mean for rows and units (rows, period)."""
    rows = []
    for t, _ in enumerate(plan.rows(product)):
        turned = (slots * roots(plan.parameters.degree, -plan.position(t))).real
        rows.append(turned.reshape(-1, period).mean(axis=0))
    return np.stack(rows)

"""Chooses batch plans for heads of two forms: one hidden layer of degree 3 or 4, or two hidden layers of quadratics.

Two quadratic layers are two forms, the second over the arguments t of the second layer. A polynomial of degree 4 is a form
over s = t² and t, whose mixed term is a square too:

    c4 t⁴ + c3 t³ + c2 t² + c1 t = α s² + β (s + κt)² + (c2 - κ c3/2) s + c1 t      β = c3/2κ,  α = c4 - β

The first form's outputs are switched to two parts and primes are dropped, so that a variable has `unit` per one; t keeps
the scale Sx S1 of the first product. κ is what integers make of it: b Sx S1 / unit, b near Z unit / Sx S1, Z the largest |t|.

    noise      fresh noise reaches a logit through |∇_x y|, a variable's rounding, sqrt(N/18 + 1) sqrt(N/2) / unit, and its
               switching through |∂y/∂variable|; each is held to flood / (sqrt(2) 2^s)
    weights    S1 by |∇_t y| ν |W - W'|₂, the first form's output weights by |∂y/∂t| times what they cost t, the second form's
               by the polynomials that rounding adds. All bounds hold on every input that keeps the contract, to first order
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from secure_infer.ckks.batch.affine_planner import failure_probability, least_range, rounded
from secure_infer.ckks.batch.chain import chain, sizes
from secure_infer.ckks.batch.deep_form import DeepForm
from secure_infer.ckks.batch.gemm import MAX_PRODUCT_BITS, limb_bits
from secure_infer.ckks.batch.plan import SLOT_BITS, BatchPlan, Layout
from secure_infer.ckks.batch.quadratic import Form, QuadraticProgram
from secure_infer.ckks.batch.quadratic_planner import (
    FLOOD,
    FRESH,
    MARGIN,
    ROUNDING,
    late_noise,
    switching_noise,
)
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import (
    MAX_SMUDGING,
    SIGMAS,
    WINDOW,
    Privacy,
    answer_bits,
    power_of_two,
    rounding_noise,
    two_digits,
)
from secure_infer.errors import UnsupportedHead
from secure_infer.heads.layers import Floats

_SHORT = 0.25
"""Bits by which a prime may be below its power of two, in rings of many places."""

_MOST_PRIMES = 16
"""No chain has more; the noise of switching is reckoned for as many."""


@dataclass(frozen=True)
class _Second:
    """The second form in integers, its unit, and what rounding it costs."""

    form: Form
    unit: float
    error: float


def _second(deep: DeepForm, unit: float, linear_unit: float, multiples: Floats, budget: float) -> _Second:
    """Finds the scale of the second form's weights; raises UnsupportedHead where they grow beyond exact products."""
    weight, quartic = deep.network.output.weight, deep.inner is None
    units = len(deep.coefficients)
    kappa = multiples * linear_unit / unit
    square, linear = deep.outer(kappa)
    identity = np.eye(units, dtype=np.int64)
    hidden = identity
    if quartic:
        zero = np.zeros_like(identity)
        hidden = np.block([[identity, zero], [identity, np.diag(multiples.astype(np.int64))]])
    outer = np.concatenate([weight * column for column in square.T], axis=1)
    terms = np.concatenate([weight * column for column in linear.T], axis=1)
    per_one = np.concatenate([np.full(units, unit), np.full(units, linear_unit)]) if quartic else np.full(units, unit)

    def cost(square: Floats, linear: Floats) -> float:
        return float(deep.bounds.change(_terms(square, linear, kappa, quartic)).max())

    scale = 2.0**4
    while (error := cost(rounded(outer, scale) / scale - outer, 0 * terms)) > 0.6 * budget:
        scale *= 2
    full = 4 * unit**2 * scale
    # Linear terms have the scale of the squares divided by a whole number.
    precision = 2.0**4
    while True:
        lift = max(1, int(full / (precision * per_one.max())))
        slopes = rounded(terms * (full / lift / per_one), 1.0)
        added = cost(0 * outer, slopes * (lift / full * per_one) - terms)
        if added <= 0.4 * budget or lift == 1:
            form = Form(hidden, rounded(outer, scale), slopes if slopes.any() else None, lift)
            return _Second(form, full, error + added)
        precision *= 2


def _terms(square: Floats, linear: Floats, kappa: Floats, quartic: bool) -> Floats:
    """Polynomials (K, units, 5) in t of a second form's weights (K, squares) and (K, variables)."""
    units = len(kappa)
    found = np.zeros((len(square), units, 5))
    if not quartic:
        found[:, :, 2], found[:, :, 1] = square, linear
        return found
    alpha, beta = square[:, :units], square[:, units:]
    found[:, :, 4] = alpha + beta
    found[:, :, 3] = 2 * beta * kappa
    found[:, :, 2] = beta * kappa**2 + linear[:, :units]
    found[:, :, 1] = linear[:, units:]
    return found


def _dropped(degree: int, bits: float) -> list[int]:
    """Widths of the fewest primes that hold at most `bits` bits; none where that is less than a prime."""
    count = math.ceil(bits / MAX_PRODUCT_BITS)
    each, longer = divmod(math.floor(bits), max(1, count))
    if each < math.ceil(math.log2(degree)) + 8:
        return []
    return [each + (index < longer) for index in range(count)]


class _Trial:
    """The planning of a head at ring degree N: what follows from the wanted error and smudging before primes are chosen.

    fresh: deviation that noise on the features brings to a logit at an input scale of one. above: value of one in the
    first form's outputs. carried: largest value of a unit that goes on beside them. allowed: deviation that either noise
    may bring.
    """

    def __init__(
        self,
        deep: DeepForm,
        scales: tuple[float, float, float],
        privacy: Privacy,
        error: float,
        smudging: int,
        degree: int,
    ) -> None:
        first, second, _ = scales
        self.deep, self.degree, self.error = deep, degree, error
        self.quartic, self.spread = deep.inner is None, math.sqrt(degree / 2)
        self.flood = error * FLOOD if privacy is Privacy.BOTH_PRIVATE else 0.0
        self.allowed = (self.flood / 2.0**smudging if self.flood else error / 20 / SIGMAS) / math.sqrt(2)
        self.fresh = FRESH * self.spread * deep.steepest
        self.input_scale = 1 << max(10, math.ceil(math.log2(max(1.0, self.fresh / self.allowed))))
        if deep.contract.bound * self.input_scale >= 2.0**SLOT_BITS:
            raise UnsupportedHead(
                f"N={degree}: an input scale of 2^{self.input_scale.bit_length() - 1} exceeds {SLOT_BITS} bits"
            )
        self.linear_unit = self.input_scale * first
        self.above = 4 * float(self.input_scale) ** 2 * first**2 * second
        self.answer_range = power_of_two(max(deep.largest, least_range(error)))
        self.window = MARGIN * WINDOW * math.sqrt(2.0)
        self.carried = self.linear_unit * float(deep.bounds.units[0].max()) if self.quartic else 0.0

    def multiples(self, unit: float) -> Floats:
        """b: how often t is added to s, where a variable has `unit` per one."""
        if not self.quartic:
            return np.ones(len(self.deep.coefficients))
        return np.maximum(1.0, np.rint(np.sqrt(self.deep.variables) * unit / self.linear_unit))

    def rounding(self, unit: float) -> float:
        """Deviation that the rounded variables bring to a logit."""
        slope = self.deep.rounding_slope(self.multiples(unit) * self.linear_unit / unit)
        switching = switching_noise(self.degree, 2.0**MAX_PRODUCT_BITS, _MOST_PRIMES) / self.above
        return self.spread * slope * math.hypot(rounding_noise(self.degree) / unit, switching)

    def second(self, unit: float) -> _Second:
        return _second(self.deep, unit, self.linear_unit, self.multiples(unit), self.error * ROUNDING / 2)

    def chain(self) -> tuple[Parameters, int]:
        """The primes, and how many of them the second form has."""
        least = 2.0**16
        while least <= self.above and self.rounding(least) > self.allowed:
            least *= 2
        if least > self.above:
            raise UnsupportedHead(
                f"N={self.degree}: the first layer leaves no room for the second; allow a larger error"
            )
        dropped = _dropped(self.degree, math.log2(self.above / least))
        trial = self.second(self.above / 2.0 ** sum(dropped))
        bits = math.log2(max(trial.unit * self.answer_range, self.carried) * self.window)
        # Primes are a little below their powers of two, the fewest of them at the widest.
        widths = [*sizes(self.degree, bits + _SHORT * (1 + len(dropped)), MAX_PRODUCT_BITS), *dropped]
        return chain(self.degree, widths, sum(widths), MAX_PRODUCT_BITS), len(widths) - len(dropped)


def deep_program(
    deep: DeepForm, scales: tuple[float, float, float], privacy: Privacy, error: float, smudging: int, degree: int
) -> QuadraticProgram:
    """The program at ring degree N; raises UnsupportedHead where precision, range and smudging do not fit."""
    trial = _Trial(deep, scales, privacy, error, smudging, degree)
    parameters, level = trial.chain()
    primes = parameters.data_primes
    unit = trial.above / math.prod(primes[level:])
    second = trial.second(unit)
    if math.prod(primes[:level]) < trial.window * max(second.unit * trial.answer_range, trial.carried):
        raise UnsupportedHead(f"{parameters}: the range does not fit after the first layer")
    if parameters.data_modulus < trial.window * trial.above * float(deep.variables.max()):
        raise UnsupportedHead(f"{parameters}: the first layer's range does not fit")
    form = deep.first(scales, trial.input_scale)
    for rows, held in ((form.rows, primes), (second.form.rows, primes[:level])):
        for prime in held:
            limb_bits(rows, prime.bit_length())
    answer_unit = second.unit / math.prod(primes[1:level])
    flood, spread = trial.flood, trial.spread
    kept = answer_bits(parameters, answer_unit, flood / spread) if flood else 0
    outer = spread * switching_noise(degree, max(primes), level) / second.unit
    inside = math.hypot(trial.fresh / trial.input_scale, trial.rounding(unit), outer)
    reached = math.floor(math.log2(flood / inside) + 1e-9) if flood else 0
    if flood and reached < smudging:
        raise UnsupportedHead(f"{parameters}: reaches {reached} smudging bits of {smudging}")
    noise = math.hypot(flood, inside, spread * late_noise(parameters, answer_unit, kept, level))
    bound = two_digits(deep.first_error(scales) + second.error + 1 / answer_unit + SIGMAS * noise)
    if bound > error:
        raise UnsupportedHead(f"{parameters}: reaches an error bound of {bound:.1e} of {error:.1e}")
    plan = BatchPlan(
        parameters=parameters,
        privacy=privacy,
        features=deep.contract.features,
        outputs=len(deep.network.output.bias),
        input_scale=trial.input_scale,
        answer_range=trial.answer_range,
        flood=flood,
        smudging_bits=min(MAX_SMUDGING, reached),
        error_bound=bound,
        failure_probability=failure_probability(len(deep.network.output.bias) * degree),
        answer_bits=kept,
        layout=Layout.SLOTS,
        level=level,
        unit=answer_unit,
    )
    plan.check()
    return QuadraticProgram(plan, form, deep.network.output.bias, second.form, carried=trial.quartic)

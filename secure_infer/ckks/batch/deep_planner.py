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
from secure_infer.ckks.batch.gemm import MAX_PRODUCT_BITS, limb_bits
from secure_infer.ckks.batch.plan import SLOT_BITS, BatchPlan, Layout
from secure_infer.ckks.batch.quadratic import Form, QuadraticProgram
from secure_infer.ckks.batch.quadratic_planner import (
    FLOOD,
    FRESH,
    MARGIN,
    ROUNDING,
    QuadraticForm,
    late_noise,
    switching_noise,
)
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
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.layers import Floats
from secure_infer.heads.network import Bounds, Network

_SHORT = 0.25
"""Bits by which a prime may be below its power of two, in rings of many places."""

_MOST_PRIMES = 16
"""No chain has more; the noise of switching is reckoned for as many."""


class DeepForm:
    """A head of two forms with its bounds; `inner` is None where the first form is the squares of single units."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        if len(network.hidden) > 2 or (len(network.hidden) == 2 and max(h.degree for h in network.hidden) > 2):
            raise UnsupportedHead(
                "batch plan: expected one hidden layer of degree at most 4, or two of degree at most 2, "
                f"got degrees {[h.degree for h in network.hidden]}"
            )
        self.network, self.contract, self.bounds = network, contract, Bounds(network, contract)
        self.weight = network.hidden[0].weight
        self.inner: QuadraticForm | None = None
        if len(network.hidden) == 2:
            last = network.hidden[1].weight
            self.inner = QuadraticForm(Network(network.hidden[:1], Linear(last)), contract)
        self.coefficients = np.zeros((network.hidden[-1].units, 5))
        self.coefficients[:, : network.hidden[-1].degree + 1] = network.hidden[-1].coefficients
        ones = np.ones(len(self.weight))
        self.slope = float(self.bounds.sensitivity(0, ones).max())  # |∇_t y|
        self.steepest = min(
            self.slope * float(np.linalg.norm(self.weight, 2)),
            float(self.bounds.sensitivity(0, self.weight @ self.weight.T).max()),
        )
        self.largest = float(self.bounds.outputs.max())
        self.variables = self.bounds.units[-1] if self.inner else self.bounds.units[0] ** 2

    def scales(self, budget: float) -> tuple[float, float, float]:
        """S1, S2, S3 of the first form at which rounding costs at most `budget`; the latter two are 1 without `inner`."""
        reach = self.slope * self.contract.largest_norm
        first = power_of_two(max(1.0, 0.3 * reach * math.sqrt(self.weight.size) / budget))
        while reach * np.linalg.norm(rounded(self.weight, first) / first - self.weight, 2) > budget / 2:
            first *= 2
        if self.inner is None:
            return first, 1.0, 1.0
        outer = float(self.bounds.sensitivity(1, np.ones(len(self.coefficients))).max())
        second = third = 2.0**10
        while outer * np.linalg.norm(self.inner.rounding_errors(math.inf, second, third)) > budget / 2:
            second, third = second * 2, third * 2
        return first, second, min(third, 4 * first**2 * second)

    def outer(self, kappa: Floats) -> tuple[Floats, Floats]:
        """(polynomials of the squares, of the linear terms) of the second form, in t: see `_terms`."""
        c = self.coefficients
        if self.inner is not None:
            return c[:, 2:3], c[:, 1:2]
        beta = c[:, 3] / (2 * kappa)
        return np.stack([c[:, 4] - beta, beta], 1), np.stack([c[:, 2] - kappa * c[:, 3] / 2, c[:, 1]], 1)

    def rounding_slope(self, kappa: Floats) -> float:
        """Largest root of sum_h (∂y/∂variable_h)² over the rounded variables."""
        if self.inner is not None:
            return float(self.bounds.sensitivity(1, np.ones(len(self.coefficients))).max())
        z, c = self.bounds.units[0], self.coefficients
        steep = 2 * np.abs(c[:, 4]) * z**2 + np.abs(c[:, 3]) * z + np.abs(c[:, 2] - kappa * c[:, 3] / 2)
        return float(np.linalg.norm(self.network.output.weight * steep, axis=1).max())


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


def deep_program(
    deep: DeepForm, scales: tuple[float, float, float], privacy: Privacy, error: float, smudging: int, degree: int
) -> QuadraticProgram:
    """The program at ring degree N; raises UnsupportedHead where precision, range and smudging do not fit."""
    first, second, _ = scales
    flood = error * FLOOD if privacy is Privacy.BOTH_PRIVATE else 0.0
    spread, quartic = math.sqrt(degree / 2), deep.inner is None
    allowed = (flood / 2.0**smudging if flood else error / 20 / SIGMAS) / math.sqrt(2)
    fresh = FRESH * spread * deep.steepest
    input_scale = 1 << max(10, math.ceil(math.log2(max(1.0, fresh / allowed))))
    if deep.contract.bound * input_scale >= 2.0**SLOT_BITS:
        raise UnsupportedHead(
            f"N={degree}: an input scale of 2^{input_scale.bit_length() - 1} exceeds {SLOT_BITS} bits"
        )
    linear_unit = input_scale * first
    above = 4 * float(input_scale) ** 2 * first**2 * second
    answer_range = power_of_two(max(deep.largest, least_range(error)))
    window = MARGIN * WINDOW * math.sqrt(2.0)
    carried = linear_unit * float(deep.bounds.units[0].max()) if quartic else 0.0

    def multiples(unit: float) -> Floats:
        """b: how often t is added to s."""
        near = np.rint(np.sqrt(deep.variables) * unit / linear_unit) if quartic else np.ones(len(deep.coefficients))
        return np.maximum(1.0, near)

    def rounding(unit: float) -> float:
        """Deviation that the rounded variables bring to a logit."""
        slope = deep.rounding_slope(multiples(unit) * linear_unit / unit)
        switching = switching_noise(degree, 2.0**MAX_PRODUCT_BITS, _MOST_PRIMES) / above
        return spread * slope * math.hypot(rounding_noise(degree) / unit, switching)

    least = 2.0**16
    while rounding(least) > allowed:
        least *= 2
    if least > above:
        raise UnsupportedHead(f"N={degree}: the first layer leaves no room for the second; allow a larger error")
    dropped = _dropped(degree, math.log2(above / least))
    unit = above / 2.0 ** sum(dropped)
    trial = _second(deep, unit, linear_unit, multiples(unit), error * ROUNDING / 2)
    bits = math.log2(max(trial.unit * answer_range, carried) * window)
    # Primes are a little below their powers of two, the fewest of them at the widest.
    widths = [*sizes(degree, bits + _SHORT * (1 + len(dropped)), MAX_PRODUCT_BITS), *dropped]
    parameters = chain(degree, widths, sum(widths), MAX_PRODUCT_BITS)
    primes, level = parameters.data_primes, len(widths) - len(dropped)
    unit = above / math.prod(primes[level:])
    final = _second(deep, unit, linear_unit, multiples(unit), error * ROUNDING / 2)
    if math.prod(primes[:level]) < window * max(final.unit * answer_range, carried):
        raise UnsupportedHead(f"{parameters}: the range does not fit after the first layer")
    if parameters.data_modulus < window * above * float(deep.variables.max()):
        raise UnsupportedHead(f"{parameters}: the first layer's range does not fit")
    form = _first(deep, scales, input_scale, above)
    for prime in primes:
        limb_bits(form.rows, prime.bit_length())
    for prime in primes[:level]:
        limb_bits(final.form.rows, prime.bit_length())
    answer_unit = final.unit / math.prod(primes[1:level])
    sent = answer_bits(parameters, answer_unit, flood / spread) if flood else 0
    outer = spread * switching_noise(degree, max(primes), level) / final.unit
    inside = math.hypot(fresh / input_scale, rounding(unit), outer)
    reached = math.floor(math.log2(flood / inside) + 1e-9) if flood else 0
    if flood and reached < smudging:
        raise UnsupportedHead(f"{parameters}: reaches {reached} smudging bits of {smudging}")
    noise = math.hypot(flood, inside, spread * late_noise(parameters, answer_unit, sent, level))
    bound = two_digits(_first_error(deep, scales) + final.error + 1 / answer_unit + SIGMAS * noise)
    if bound > error:
        raise UnsupportedHead(f"{parameters}: reaches an error bound of {bound:.1e} of {error:.1e}")
    plan = BatchPlan(
        parameters=parameters,
        privacy=privacy,
        features=deep.contract.features,
        outputs=len(deep.network.output.bias),
        input_scale=input_scale,
        answer_range=answer_range,
        flood=flood,
        smudging_bits=min(MAX_SMUDGING, reached),
        error_bound=bound,
        failure_probability=failure_probability(len(deep.network.output.bias) * degree),
        answer_bits=sent,
        layout=Layout.SLOTS,
        level=level,
        unit=answer_unit,
    )
    plan.check()
    return QuadraticProgram(plan, form, deep.network.output.bias, final.form, carried=quartic)


def _first(deep: DeepForm, scales: tuple[float, float, float], input_scale: int, above: float) -> Form:
    first, second, third = scales
    if deep.inner is None:
        return Form(rounded(deep.weight, first), None, None, 1)
    linear = rounded(deep.inner.linear, third)
    lift = input_scale * int(4 * first**2 * second // third)
    hidden, output = rounded(deep.inner.hidden, first), rounded(deep.inner.output, second)
    return Form(hidden, output, linear if linear.any() else None, lift)


def _first_error(deep: DeepForm, scales: tuple[float, float, float]) -> float:
    first, second, third = scales
    moved = np.linalg.norm(rounded(deep.weight, first) / first - deep.weight, 2)
    cost = deep.slope * deep.contract.largest_norm * float(moved)
    if deep.inner is not None:
        outer = float(deep.bounds.sensitivity(1, np.ones(len(deep.coefficients))).max())
        cost += outer * float(np.linalg.norm(deep.inner.rounding_errors(math.inf, second, third)))
    return cost

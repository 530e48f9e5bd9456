"""Chooses batch plans for heads with one hidden layer of quadratics, y_k = sum_h v_kh (w_h·x)² + m_k·x + b_k.

With R the largest |logit| over the contract, tau the wanted error, sigma = tau/14 the flood, S1, S2, Sm the scales of w, v, m
and Sx the input's:

    weights    S1, S2, Sm are so large that rounding costs at most tau/2 on the worst input. The rounded head differs from
               the exact one by a head with the units of both, whose largest value is that cost
    noise      fresh noise on the features reaches a logit through its gradient, |∇y_k| <= 2 ν max|eig(Wᵀ diag(v_k) W)| + |m_k|:
               3.24 sqrt(N/2) |∇y| / Sx in a slot. Products are not rounded before the flood; switching outputs between k
               primes adds 3.24 sqrt(16 k N / 12) q / P to a coefficient, next to nothing beside it
    input      Sx = 2^s times that over sigma, s the smudging bits asked for
    modulus    2.1 sqrt(2) R times the unit 4 Sx² S1² S2: a coefficient is at most the largest |slot|

The modulus grows with the third power of what rounding may not cost, and with the second of sigma: hence their shares of
tau, which differ from those of affine heads. The encoder's rounding counts as noise of variance 1/12 a coefficient.
"""

from __future__ import annotations

import math

import numpy as np

from secure_infer.ckks.batch.affine_planner import failure_probability, least_range, rounded
from secure_infer.ckks.batch.chain import SPECIAL_BITS, chain, sizes
from secure_infer.ckks.batch.gemm import MAX_PRODUCT_BITS, limb_bits
from secure_infer.ckks.batch.plan import SLOT_BITS, SWITCHED, BatchPlan, Layout
from secure_infer.ckks.batch.quadratic import Form, QuadraticProgram
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import (
    MAX_SMUDGING,
    NOISE,
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
from secure_infer.heads.network import Bounds, Hidden, Network

FLOOD, ROUNDING = 1 / 14, 1 / 2
"""Of the wanted error: the flood's standard deviation, and what rounding the weights may cost."""

MARGIN = 1.001
FRESH = math.sqrt(NOISE**2 + 1 / 12)
_SHARES = (0.6, 0.33, 0.07)  # of what rounding may cost: hidden weights, output weights, linear terms


class QuadraticForm:
    """The head as a sum of squares: hidden (units, d), output (K, units), linear (K, d), bias (K,), and its bounds."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        (layer,) = network.hidden
        if layer.degree > 2:
            raise UnsupportedHead("batch plan: a hidden layer of degree above two")
        coefficients = np.zeros((layer.units, 3))
        coefficients[:, : layer.degree + 1] = layer.coefficients
        constant, slope, square = coefficients.T
        weight = network.output.weight
        self.contract = contract
        used = (square != 0) & layer.weight.any(axis=1) & weight.any(axis=0)
        used[np.flatnonzero(~used)[: int(not used.any())]] = True  # one unit at least
        self.hidden = layer.weight[used]
        self.output = (weight * square)[:, used]
        self.linear = (weight * slope) @ layer.weight
        self.bias = network.output.bias + weight @ constant

    def rounding_errors(self, first: float, second: float, third: float) -> Floats:
        """Largest |error| (K,) from rounding the weights at these scales; infinity: not rounded."""
        pair = np.concatenate([self.hidden, _rounded(self.hidden, first)])
        output = np.concatenate([self.output, -_rounded(self.output, second)], axis=1)
        squares = largest_form(pair, output, self.contract)
        linear = self.contract.functional_bound(self.linear - _rounded(self.linear, third))
        return np.asarray(squares + linear)

    def rounding_error(self, first: float, second: float, third: float) -> float:
        """The largest of `rounding_errors`."""
        return float(self.rounding_errors(first, second, third).max())

    def scales(self, budget: float) -> tuple[float, float, float]:
        """S1, S2, Sm at which rounding costs at most `budget`: integers of four bits times powers of two, Sm a power of two."""
        found = []
        for place, share in enumerate(_SHARES):
            scale = 2.0**20
            for _ in range(8):  # the cost is all but proportional to the rounding step
                trial = [math.inf] * 3
                trial[place] = scale
                cost = self.rounding_error(*trial)
                wanted = max(1.0, scale * cost / (share * budget))
                wanted = power_of_two(wanted) if place == 2 else _four_bits(wanted)
                if cost <= share * budget and scale <= 1.2 * wanted:
                    break
                # Where the cost is not proportional, smaller steps: down by halves at most, up at least by doubling.
                scale = max(wanted, scale / 2**6) if cost <= share * budget else max(wanted, 2 * scale)
            found.append(scale)
        # The three costs are not at their worst on one input and output: what is left is given back.
        first, second, third = found
        slack = 0.98 * budget / max(self.rounding_error(first, second, third), 0.01 * budget)
        less = _aligned(_four_bits(max(1.0, first / slack)), _four_bits(max(1.0, second / slack)), third)
        return less if self.rounding_error(*less) <= budget else _aligned(first, second, third)

    @property
    def largest(self) -> float:
        """R: the largest |logit|."""
        squares = largest_form(self.hidden, self.output, self.contract)
        return float((squares + np.abs(self.bias) + self.contract.functional_bound(self.linear)).max())

    @property
    def steepest(self) -> float:
        """The largest |∇y_k|."""
        ball = InputContract(self.contract.features, self.contract.largest_norm, self.contract.largest_norm)
        norm = ball.largest_norm
        squares = largest_form(self.hidden, self.output, ball)
        return float((2 * squares / norm + np.linalg.norm(self.linear, axis=1)).max())


def _four_bits(value: float) -> float:
    step = power_of_two(value) / 16
    return math.ceil(value / max(1.0, step)) * max(1.0, step)


def _aligned(first: float, second: float, third: float) -> tuple[float, float, float]:
    """The scales with the second raised until 4·first²·second is a multiple of the third: linear terms are lifted by it."""
    even = float(int(first) & -int(first))
    step = max(1.0, third / (4 * even**2))
    return first, math.ceil(second / step) * step, third


def _rounded(weights: Floats, scale: float) -> Floats:
    return weights if math.isinf(scale) else rounded(weights, scale) / scale


def largest_form(hidden: Floats, output: Floats, contract: InputContract) -> Floats:
    """Largest |sum_h output_kh (hidden_h·x)²| (K,) over the contract."""
    square = np.tile([0.0, 0.0, 1.0], (len(hidden), 1))
    return Bounds(Network([Hidden(hidden, square)], Linear(output)), contract).outputs


def quadratic_program(
    form: QuadraticForm, scales: tuple[float, float, float], privacy: Privacy, error: float, smudging: int, degree: int
) -> QuadraticProgram:
    """The program at ring degree N; raises UnsupportedHead where precision, range and smudging do not fit.

    scales: as `QuadraticForm.scales` finds them, the same for every ring.
    """
    first, second, third = scales
    flood = error * FLOOD if privacy is Privacy.BOTH_PRIVATE else 0.0
    answer_range = power_of_two(max(form.largest, least_range(error)))
    window = MARGIN * WINDOW * math.sqrt(2.0) * answer_range
    fresh = FRESH * math.sqrt(degree / 2) * form.steepest  # a logit's noise is this over Sx
    least = max((2.0**smudging / flood if flood else SIGMAS / (error / 20)) * fresh, 2.0**10)
    if form.contract.bound * least >= 2.0**SLOT_BITS:
        raise UnsupportedHead(f"N={degree}: an input scale of {least:.3g} exceeds the encoder's {SLOT_BITS} bits")
    weight_scale = 4 * first**2 * second
    bits = math.log2(least**2 * weight_scale * window)
    parameters = chain(degree, sizes(degree, bits, MAX_PRODUCT_BITS, primes=2), bits, MAX_PRODUCT_BITS)
    # What rounding up of the primes left over goes to the input.
    input_scale = int(
        min(math.sqrt(parameters.data_modulus / (weight_scale * window)), 0.999 * 2.0**SLOT_BITS / form.contract.bound)
    )
    hidden, output, linear = rounded(form.hidden, first), rounded(form.output, second), rounded(form.linear, third)
    lift = input_scale * int(weight_scale // third)
    unit = input_scale**2 * int(weight_scale) / (parameters.data_modulus // parameters.data_primes[0])
    spread = math.sqrt(degree / 2)
    kept = answer_bits(parameters, unit, flood / spread) if flood else 0
    for prime in parameters.data_primes:
        limb_bits(np.concatenate([hidden, linear]), prime.bit_length())
        limb_bits(output, prime.bit_length() + 1)
    primes = parameters.data_primes
    above = float(input_scale) ** 2 * weight_scale
    inside = math.hypot(fresh / input_scale, spread * switching_noise(degree, max(primes), len(primes)) / above)
    reached = math.floor(math.log2(flood / inside) + 1e-9) if flood else 0
    if flood and reached < smudging:
        raise UnsupportedHead(f"{parameters}: reaches {reached} smudging bits of {smudging}")
    noise = math.hypot(
        flood, fresh / input_scale, spread * late_noise(parameters, unit, kept, len(parameters.data_primes))
    )
    bound = two_digits(form.rounding_error(*scales) + 1 / unit + SIGMAS * noise)
    if bound > error:
        raise UnsupportedHead(f"{parameters}: reaches an error bound of {bound:.1e} of {error:.1e}")
    plan = BatchPlan(
        parameters=parameters,
        privacy=privacy,
        features=form.contract.features,
        outputs=len(form.bias),
        input_scale=input_scale,
        answer_range=answer_range,
        flood=flood,
        smudging_bits=min(MAX_SMUDGING, reached),
        error_bound=bound,
        failure_probability=failure_probability(len(form.bias) * degree),
        answer_bits=kept,
        layout=Layout.SLOTS,
        level=len(parameters.data_primes),
        unit=unit,
    )
    plan.check()
    return QuadraticProgram(plan, Form(hidden, output, linear if linear.any() else None, lift), form.bias)


def switching_noise(degree: int, largest: float, level: int) -> float:
    """Standard deviation that switching all parts of an output adds to a coefficient; largest: the widest data prime."""
    digits = NOISE * math.sqrt(4 * SWITCHED * level * degree / 12)
    return digits * largest / 2.0 ** (SPECIAL_BITS - 1) + 2 * rounding_noise(degree)


def late_noise(parameters: Parameters, unit: float, kept: int, level: int) -> float:
    """Standard deviation that a coefficient takes after the flood, in logits: dropped primes, rounding of the answer.

    unit: of the answer. level: data primes left where answers are blinded.
    """
    rounding, first = rounding_noise(parameters.degree), parameters.data_primes[0]
    step = first / 2.0**kept / unit if kept else 0.0
    return math.hypot((level - 1) * rounding / unit, rounding * step)

"""Chooses batch plans for affine heads by the coefficient planner's rule.

With R the largest |logit| over the contract, tau the wanted error, sigma = tau/8 the flood and S the product's scale:

    weight scale   the least power of two at which rounding the weights costs at most tau/5 on the worst input
    smudging bits  log2(sigma S / (3.24 |w|)), |w| the largest L2 norm of a row of integer weights
    modulus        2.1 R S, no more than the smudging asked for needs: a batch is dominated by what it uploads
"""

from __future__ import annotations

import math

import numpy as np

from secure_infer.ckks.batch.affine import AffineProgram
from secure_infer.ckks.batch.chain import chain, sizes
from secure_infer.ckks.batch.gemm import Integers, limb_bits
from secure_infer.ckks.batch.plan import BatchPlan, Layout
from secure_infer.ckks.parameters import MAX_PRIME_BITS, Parameters
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

_MARGIN = 1.001  # of the window, for figures rounded on the way


def least_range(error: float) -> float:
    """Smallest range that is stated, so that a check's margin for errors fits the window."""
    return max(2.0**-3, 1.5 * error / (WINDOW / 2 - 1))


def rounded(weights: np.ndarray, scale: float) -> Integers:
    """round(weights · scale), int64. Raises UnsupportedHead beyond 2^52."""
    if float(np.abs(weights).max(initial=0.0)) * scale >= 2.0**52:
        raise UnsupportedHead(
            "weights: too large to be rounded within the wanted error; ask for a larger error or scale the features"
        )
    return np.rint(weights * scale).astype(np.int64)


def rounding_error(linear: Linear, contract: InputContract, scale: float) -> float:
    """Largest |logit error| from rounding the weights, over every accepted input."""
    difference = rounded(linear.weight, scale) / scale - linear.weight
    return float(contract.functional_bound(difference).max())


def _weight_scale(linear: Linear, contract: InputContract, budget: float) -> float:
    scale = power_of_two(max(1.0, min(contract.bound * contract.features, contract.largest_norm) / (4 * budget)))
    while rounding_error(linear, contract, scale) > budget:
        scale *= 2
    return scale


def affine_program(
    linear: Linear, contract: InputContract, privacy: Privacy, error: float, smudging: int, degree: int
) -> AffineProgram:
    """The program at ring degree N; raises UnsupportedHead where precision, range and smudging do not fit."""
    flood = error / 8 if privacy is Privacy.BOTH_PRIVATE else 0.0
    weight_scale = _weight_scale(linear, contract, error / 5)
    weights = rounded(linear.weight, weight_scale)
    norm = float(np.linalg.norm(weights.astype(np.float64), axis=1).max())
    largest = float((np.abs(linear.bias) + contract.functional_bound(linear.weight)).max())
    answer_range = power_of_two(max(largest, least_range(error)))
    window = _MARGIN * WINDOW * answer_range
    encryption = SIGMAS * NOISE * math.sqrt(4 * degree / 3 + 1) / (error / 20)
    least = max(
        encryption, (2.0**smudging / flood if flood else SIGMAS / (error / 20)) * NOISE * norm, 2 * weight_scale
    )
    first = math.log2(5 * rounding_noise(degree) / (error / 20) * window)
    bits = math.log2(least * window)
    parameters = chain(degree, sizes(degree, bits, MAX_PRIME_BITS, first), bits, MAX_PRIME_BITS, first)
    input_scale = int(min(parameters.data_modulus / (window * weight_scale), 2.0**60 / max(1.0, contract.bound)))
    scale = input_scale * weight_scale
    unit = scale / (parameters.data_modulus // parameters.data_primes[0])
    kept = answer_bits(parameters, unit, flood) if flood else 0
    for prime in parameters.data_primes:
        limb_bits(weights, prime.bit_length())
    reached = math.floor(math.log2(flood * scale / (NOISE * norm)) + 1e-9) if flood and norm else MAX_SMUDGING
    if flood and reached < smudging:
        raise UnsupportedHead(f"{parameters}: reaches {reached} smudging bits of {smudging}")
    noise = _noise(parameters, norm, scale, unit, flood, kept)
    from_input = float(np.abs(weights).astype(np.float64).sum(axis=1).max()) / (2 * scale)
    bound = two_digits(rounding_error(linear, contract, weight_scale) + from_input + 1 / unit + SIGMAS * noise)
    if bound > error:
        raise UnsupportedHead(f"{parameters}: reaches an error bound of {bound:.1e} of {error:.1e}")
    plan = BatchPlan(
        parameters=parameters,
        privacy=privacy,
        features=contract.features,
        outputs=len(linear.bias),
        input_scale=input_scale,
        answer_range=answer_range,
        flood=flood,
        smudging_bits=min(MAX_SMUDGING, reached) if flood else 0,
        error_bound=bound,
        failure_probability=failure_probability(len(linear.bias) * degree),
        answer_bits=kept,
        layout=Layout.COEFFICIENTS,
        level=len(parameters.data_primes),
        unit=unit,
    )
    plan.check()
    return AffineProgram(plan, weights, linear.bias)


def failure_probability(logits: int) -> float:
    """That any of that many Gaussian errors exceeds its six sigma."""
    return float(f"{min(1.0, logits * math.erfc(SIGMAS / math.sqrt(2))):.1e}")


def _noise(parameters: Parameters, norm: float, scale: float, unit: float, flood: float, kept: int) -> float:
    """Standard deviation of a coefficient of the answer, in logits."""
    rounding = rounding_noise(parameters.degree)
    zero = NOISE * math.sqrt(4 * parameters.degree / 3 + 1) / scale if flood else 0.0
    drops = (len(parameters.data_primes) - 1) * rounding / unit
    step = parameters.data_primes[0] / 2.0**kept / unit if kept else 0.0
    return math.hypot(flood, NOISE * norm / scale, zero, drops, rounding * step)

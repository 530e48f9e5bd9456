"""Chooses the coefficient plan of a linear head: range, precision and smudging decide, not a preset.

With R the largest |logit| over the contract, tau the wanted error, sigma the flood and S = input_scale * weight_scale:

    weight_scale   large enough that rounding the weights costs at most tau/5 on the worst input (exactly evaluated)
    input_scale    all that the modulus leaves: S = Q / (2.1 R)
    smudging bits  log2(sigma S / (3.24 |w|)), |w| the L2 norm of the integer weights under one answer
    several primes the answer keeps unit >= 5 sqrt(N/18 + 1) / (tau/20), so that rescaling costs little

sigma is tau/8: six sigma and the parts above stay within tau. What is reached is computed from the rounded weights
afterwards, and the plan states that, not the target.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.coefficient.plan import CoefficientPlan
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, MAX_PRIME_BITS, MIN_PRIME_BITS, Parameters
from secure_infer.ckks.plan import (
    DEFAULT_ERROR,
    DEFAULT_SMUDGING,
    MAX_READING,
    MAX_SMUDGING,
    NOISE,
    SIGMAS,
    WINDOW,
    Privacy,
    answer_bits,
    coarse,
    forged_key_cap,
    power_of_two,
    rounding_noise,
    two_digits,
)
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import InputContract, Linear


@dataclass(frozen=True)
class Candidate:
    """One set of parameters tried for a head, with what came of it: a plan and its estimated cost, or the reason not."""

    parameters: str
    plan: CoefficientPlan | None
    cost: float
    reason: str


def largest_logit(linear: Linear, contract: InputContract) -> float:
    """R: the largest |logit| on any input that keeps the contract."""
    return float((np.abs(linear.bias) + contract.functional_bound(linear.weight)).max())


def integer_weights(linear: Linear, weight_scale: int) -> NDArray[np.int64]:
    """round(W * weight_scale), int64 (K, d)."""
    return np.rint(linear.weight * weight_scale).astype(np.int64)


def weight_error(linear: Linear, contract: InputContract, weight_scale: int) -> float:
    """Largest |logit error| from rounding the weights, over every accepted input."""
    difference = integer_weights(linear, weight_scale) / weight_scale - linear.weight
    return float(contract.functional_bound(difference).max())


def _weight_scale(linear: Linear, contract: InputContract, budget: float) -> int:
    scale = max(
        1.0,
        min(contract.bound * contract.features / 4, contract.largest_norm * math.sqrt(contract.features / 12)) / budget,
    )
    previous = math.inf
    for _ in range(64):
        if scale * float(np.abs(linear.weight).max()) >= 2.0**62:
            break
        published = math.ceil(coarse(scale))
        error = weight_error(linear, contract, published)
        if error <= budget:
            return published
        scale *= max(1.02 * error / budget, 2.0 if error >= previous else 1.0)
        previous = error
    raise UnsupportedHead(
        "weights: too large to be rounded within the wanted error; ask for a larger error or scale the features"
    )


def _filled(per: int, outputs: int) -> int:
    """Rows a product when as many products as `per` takes are evenly filled."""
    return -(-outputs // -(-outputs // per))


def _packed_norm(weights: NDArray[np.int64], per: int) -> float:
    squares = (weights.astype(np.float64) ** 2).sum(axis=1)
    return math.sqrt(max(squares[i : i + per].sum() for i in range(0, len(squares), per)))


@dataclass(frozen=True)
class _Demand:
    """What a head asks of any ring of that degree, before primes are chosen. Scales are the product S."""

    weight_scale: int
    answer_range: float
    flood: float
    per: int
    norm: float
    least_scale: float
    most_scale: float
    least_unit: float


def _demand(
    linear: Linear,
    contract: InputContract,
    privacy: Privacy,
    error: float,
    smudging: int,
    degree: int,
    weight_scale: int,
) -> _Demand:
    outputs, features = linear.weight.shape
    private = privacy is Privacy.BOTH_PRIVATE
    least_range = max(2.0**-3, 1.5 * error / (WINDOW / 2 - 1))  # so that the check's margin fits the window
    answer_range = power_of_two(max(largest_logit(linear, contract), least_range))
    flood = error / 8 if private else 0.0
    per = min(max(1, degree // features), outputs)
    per = _filled(min(per, MAX_READING // degree), outputs)
    if private:
        per = _filled(min(per, forged_key_cap(degree, WINDOW * answer_range, flood)), outputs)
    norm = _packed_norm(integer_weights(linear, weight_scale), per)
    norm = coarse(norm) if norm else 0.0  # scales follow from it, and are published
    encryption = SIGMAS * NOISE * math.sqrt(4 * degree / 3 + 1) / (error / 20)
    least = max(encryption, 2.0**smudging * NOISE * norm / flood if private else SIGMAS * NOISE * norm / (error / 20))
    most = max(least, 2.0**MAX_SMUDGING * NOISE * norm / flood if private else 64 * least)
    return _Demand(
        weight_scale=weight_scale,
        answer_range=answer_range,
        flood=flood,
        per=per,
        norm=norm,
        least_scale=least,
        most_scale=max(least, min(most, weight_scale * 2.0**61 / max(1.0, contract.bound))),
        least_unit=5 * rounding_noise(degree) / (error / 20),
    )


def _parameters(demand: _Demand, degree: int, primes: int) -> Parameters:
    """The chain of that many data primes that the demand needs; raises UnsupportedHead when it does not fit."""
    limit = MAX_MODULUS_BITS[degree]
    window = math.log2(1.001 * WINDOW * demand.answer_range)
    needed = math.log2(demand.least_scale) + window
    if primes == 1:
        room = min(MAX_PRIME_BITS, limit)
        if room < needed:
            raise UnsupportedHead(f"N={degree}, one prime: {room} bits of data modulus, needs {math.ceil(needed)}")
        return seal.parameters(
            degree, (min(room, max(2 * MIN_PRIME_BITS, math.ceil(math.log2(demand.most_scale) + window))),)
        )
    room = min(primes * MAX_PRIME_BITS, limit - MIN_PRIME_BITS)
    wanted = math.ceil(min(room, math.log2(demand.most_scale) + window))
    first = max(-(-wanted // primes), math.ceil(math.log2(demand.least_unit) + window))
    rest = max(MIN_PRIME_BITS + 1, -(-(wanted - first) // (primes - 1)))
    total = first + rest * (primes - 1)
    if needed > room or first > MAX_PRIME_BITS or total > limit - MIN_PRIME_BITS:
        rest = (limit - MIN_PRIME_BITS - first) // (primes - 1)
        if first > MAX_PRIME_BITS or rest < MIN_PRIME_BITS + 1 or first + rest * (primes - 1) < needed:
            raise UnsupportedHead(
                f"N={degree}, {primes} primes: {room} bits of data modulus, needs {math.ceil(needed)}"
            )
    return seal.parameters(degree, (first,) + (rest,) * (primes - 1), MIN_PRIME_BITS)


def _compile(
    linear: Linear,
    contract: InputContract,
    privacy: Privacy,
    error: float,
    smudging: int,
    degree: int,
    primes: int,
    weight_scale: int,
) -> CoefficientPlan:
    demand = _demand(linear, contract, privacy, error, smudging, degree, weight_scale)
    parameters = _parameters(demand, degree, primes)
    dropped = parameters.data_modulus // parameters.data_primes[0]
    # Prime sizes round up, so the scale that is enough for smudging may be too little for rescaling.
    most = max(demand.most_scale, 1.0005 * demand.least_unit * dropped) if dropped > 1 else demand.most_scale
    product_scale = min(parameters.data_modulus / (1.0001 * WINDOW * demand.answer_range), most)
    input_scale = int(product_scale / demand.weight_scale)
    if input_scale < 2:
        raise UnsupportedHead(f"{parameters}: the range and the precision leave no room for the input")
    scale = float(input_scale) * demand.weight_scale
    unit = scale / dropped
    if primes > 1 and unit < demand.least_unit:
        raise UnsupportedHead(f"{parameters}: rescaling would cost more than a twentieth of the wanted error")
    if demand.flood:
        # Prime sizes round up, so the window may be wider than was reckoned with.
        cap = forged_key_cap(degree, parameters.data_primes[0] / unit, demand.flood)
        demand = replace(demand, per=_filled(min(demand.per, cap), len(linear.bias)))
    kept = answer_bits(parameters, unit, demand.flood) if demand.flood else 0
    reached = _smudging(demand, scale) if demand.flood else 0
    if reached < smudging and demand.flood:
        raise UnsupportedHead(f"{parameters}: reaches {reached} smudging bits of {smudging}")
    bound = _error_bound(linear, contract, demand, parameters, scale, kept)
    if bound > error:
        raise UnsupportedHead(f"{parameters}: reaches an error bound of {bound:.1e} of {error:.1e}")
    plan = CoefficientPlan(
        parameters=parameters,
        privacy=privacy,
        features=contract.features,
        outputs=len(linear.bias),
        answers_per_product=demand.per,
        input_scale=input_scale,
        weight_scale=demand.weight_scale,
        answer_range=demand.answer_range,
        flood=demand.flood,
        smudging_bits=reached,
        error_bound=bound,
        failure_probability=float(f"{len(linear.bias) * math.erfc(SIGMAS / math.sqrt(2)):.1e}"),
        answer_bits=kept,
    )
    plan.check()
    return plan


def _smudging(demand: _Demand, scale: float) -> int:
    if not demand.norm:
        return MAX_SMUDGING
    return min(MAX_SMUDGING, math.floor(math.log2(demand.flood * scale / (NOISE * demand.norm)) + 1e-9))


def _error_bound(
    linear: Linear, contract: InputContract, demand: _Demand, parameters: Parameters, scale: float, kept: int
) -> float:
    """What was really rounded, on the worst input, plus six sigma of all the noise; two digits, rounded up."""
    unit = scale / (parameters.data_modulus // parameters.data_primes[0])
    rounding = rounding_noise(parameters.degree)
    step = parameters.data_primes[0] / 2.0**kept / unit if kept else 0.0
    noise = math.hypot(
        demand.flood,
        NOISE * demand.norm / scale,
        NOISE * math.sqrt(4 * parameters.degree / 3 + 1) / scale,
        len(parameters.data_primes) * rounding / unit,
        rounding * step,
    )
    weights = integer_weights(linear, demand.weight_scale)
    from_input = float(np.abs(weights).astype(np.float64).sum(axis=1).max()) / (2 * scale)
    bound = weight_error(linear, contract, demand.weight_scale) + from_input + 1 / unit + SIGMAS * noise
    return two_digits(bound)


def estimated_cost(plan: CoefficientPlan) -> float:
    """Milliseconds of one query on the machine the constants were read on (one core, 100 MB/s): only their order counts."""
    size = plan.parameters.degree * len(plan.parameters.data_primes) / 8192
    work = plan.ciphertexts * 1.2 + plan.products * (plan.ciphertexts * 0.07 + 0.5 + (1.2 if plan.flood else 0.0))
    return size * work + (plan.query_bytes + plan.answer_bytes) / 1e5


def explore(
    linear: Linear,
    contract: InputContract,
    *,
    privacy: Privacy = Privacy.BOTH_PRIVATE,
    error: float = DEFAULT_ERROR,
    smudging: int = DEFAULT_SMUDGING,
) -> list[Candidate]:
    """Every candidate with its plan or the reason against it, cheapest plan first.

    error: wanted bound on |logit error|. smudging: least smudging bits (both-private only).
    """
    found = []
    try:
        weight_scale = _weight_scale(linear, contract, error / 5)  # the same for every ring
    except UnsupportedHead as problem:
        return [Candidate("any ring", None, math.inf, problem.message)]
    for degree, primes in itertools.product(MAX_MODULUS_BITS, (1, 2, 3)):
        if primes > 1 and degree == 2048:
            continue
        try:
            plan = _compile(linear, contract, privacy, error, smudging, degree, primes, weight_scale)
            found.append(Candidate(str(plan.parameters), plan, estimated_cost(plan), ""))
        except (UnsupportedHead, PlanRefused) as problem:
            found.append(Candidate(f"N={degree}, {primes} data primes", None, math.inf, problem.message))
    return sorted(found, key=lambda candidate: candidate.cost)


def choose(
    linear: Linear,
    contract: InputContract,
    *,
    privacy: Privacy = Privacy.BOTH_PRIVATE,
    error: float = DEFAULT_ERROR,
    smudging: int = DEFAULT_SMUDGING,
) -> CoefficientPlan:
    """The cheapest plan that keeps the privacy, error bound and smudging; raises UnsupportedHead when none does."""
    tried = explore(linear, contract, privacy=privacy, error=error, smudging=smudging)
    if tried[0].plan is None:
        reasons = "; ".join(candidate.reason for candidate in tried[-3:])
        raise UnsupportedHead(
            f"no parameters give {privacy} with error {error:g} and {smudging} smudging bits "
            f"for {linear.weight.shape[1]} features, {linear.weight.shape[0]} outputs, "
            f"|logit| <= {largest_logit(linear, contract):.3g}: {reasons}. "
            "Allow a larger error or fewer smudging bits, or train with stronger weight decay so that the range shrinks"
        )
    return tried[0].plan

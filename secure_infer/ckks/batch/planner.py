"""Chooses the batch plan of a head: every ring is tried, the least bytes and work a record win."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from secure_infer.ckks.batch.affine import AffineProgram
from secure_infer.ckks.batch.affine_planner import affine_program
from secure_infer.ckks.batch.deep_form import DeepForm
from secure_infer.ckks.batch.deep_planner import deep_program
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.batch.quadratic import QuadraticProgram
from secure_infer.ckks.batch.quadratic_planner import ROUNDING, QuadraticForm, quadratic_program
from secure_infer.ckks.parameters import MAX_MODULUS_BITS
from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING, Privacy
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import InputContract
from secure_infer.heads.network import Network

FAST_SMUDGING = 2
"""Smudging bits of a plan that reduces what noise tells of the weights without hiding it; to be labelled so."""

Program = AffineProgram | QuadraticProgram


@dataclass(frozen=True)
class Candidate:
    """One ring tried: the compiled program (its `plan` is public) and bytes a record, or the reason against it."""

    parameters: str
    program: Program | None
    cost: float
    reason: str


def plan_batch(
    network: Network,
    contract: InputContract,
    *,
    privacy: Privacy = Privacy.BOTH_PRIVATE,
    error: float = DEFAULT_ERROR,
    smudging: int = DEFAULT_SMUDGING,
) -> list[Candidate]:
    """Every ring with its program or the reason against it, cheapest a record first, the smaller batch where equal.

    error: wanted bound on |logit error|. smudging: least smudging bits (both-private only). Either way the model is
    hidden only from key holders who made all their keys honestly; see `plan`.
    """
    try:
        compiled = _compiler(network, contract, privacy, error, smudging)
    except UnsupportedHead as problem:
        return [Candidate("any ring", None, math.inf, problem.message)]
    found = []
    for degree in MAX_MODULUS_BITS:
        try:
            program = compiled(degree)
            found.append(Candidate(str(program.plan.parameters), program, cost(program.plan), ""))
        except (UnsupportedHead, PlanRefused) as problem:
            found.append(Candidate(f"N={degree}", None, math.inf, problem.message))
    return sorted(found, key=lambda candidate: candidate.cost)


def _compiler(
    network: Network, contract: InputContract, privacy: Privacy, error: float, smudging: int
) -> Callable[[int], Program]:
    """Program by ring degree; what does not depend on the ring is done here."""
    if not network.hidden:
        return lambda degree: affine_program(network.output, contract, privacy, error, smudging, degree)
    if len(network.hidden) == 1 and network.hidden[0].degree <= 2:
        form = QuadraticForm(network, contract)
        scales = form.scales(error * ROUNDING)
        return lambda degree: quadratic_program(form, scales, privacy, error, smudging, degree)
    deep = DeepForm(network, contract)
    inner = deep.scales(error * ROUNDING / 2)
    return lambda degree: deep_program(deep, inner, privacy, error, smudging, degree)


def choose(
    network: Network,
    contract: InputContract,
    *,
    privacy: Privacy = Privacy.BOTH_PRIVATE,
    error: float = DEFAULT_ERROR,
    smudging: int = DEFAULT_SMUDGING,
) -> Program:
    """The cheapest program of `plan_batch`; raises UnsupportedHead when there is none."""
    tried = plan_batch(network, contract, privacy=privacy, error=error, smudging=smudging)
    if tried[0].program is None:
        reasons = "; ".join(candidate.reason for candidate in tried[-2:])
        raise UnsupportedHead(
            f"no batch parameters give {privacy} with error {error:g} and {smudging} smudging bits "
            f"for a {'-'.join(map(str, network.widths))} head: {reasons}. Allow a larger error or fewer smudging bits"
        )
    return tried[0].program


_FIXED = 300
"""What taking in a ciphertext costs whatever its size, in bytes that cost as much."""


def cost(plan: BatchPlan) -> float:
    """Bytes a record of a full batch: work goes with them, as both go with the modulus. Near ties go to the smaller ring."""
    size = plan.query_bytes + plan.answer_bytes + _FIXED * plan.ciphertexts
    return size / plan.records * (1 + math.log2(plan.parameters.degree) / 100)

"""Chooses slot programs for a network and a layout: chain and scales from range, precision and smudging.

The smallest modulus whose noise leaves the wanted smudging is taken (`scales` has what there is to choose). sigma, the
flood, is tau/8: six sigma and the rounded weights stay within tau. What is reached is computed from the compiled,
rounded network, and the plan states that.

`draft` searches, in milliseconds, and rests on estimates of rounding; `program` compiles as well and states the bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from secure_infer.ckks import seal
from secure_infer.ckks.embedding import conjugation, element
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, MAX_PRIME_BITS, MIN_PRIME_BITS, Parameters
from secure_infer.ckks.plan import (
    DEFAULT_ERROR,
    DEFAULT_SMUDGING,
    MAX_READING,
    MAX_SMUDGING,
    SIGMAS,
    WINDOW,
    Privacy,
    answer_bits,
    forged_key_cap,
    power_of_two,
    rounding_noise,
    two_digits,
)
from secure_infer.ckks.residues import packed_width
from secure_infer.ckks.slots.compiled import compile_network, rounding_error
from secure_infer.ckks.slots.influence import Influence, quiet_first
from secure_infer.ckks.slots.layouts import Layout, layouts, unfit
from secure_infer.ckks.slots.noise import evaluation_noise
from secure_infer.ckks.slots.plan import SlotPlan
from secure_infer.ckks.slots.program import Layer, Program
from secure_infer.ckks.slots.scales import Scales
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import InputContract
from secure_infer.heads.network import Network

__all__ = ["DEGREES", "Demand", "Layout", "Planner", "layouts", "unfit"]

DEGREES = tuple(degree for degree in MAX_MODULUS_BITS if degree >= 4096)
_TOP_BITS = (0, *range(MIN_PRIME_BITS, MAX_PRIME_BITS + 1, 4))  # whole half-bytes: nothing is lost when packed
_WORKING_BITS = range(20, 90)
_SHARES = (8, 16, 32, 64)
"""Each rounded matrix may use this part of the allowed error, as estimated; the next is tried where it used more."""

_Chains = list[tuple[int, list[tuple[int, tuple[int, ...]]]]]
"""For each top prime's bits, (working bits, bits of the chain), ascending."""


@dataclass(frozen=True)
class Demand:
    """What the caller wants: the level of privacy, a bound on the logit error, smudging bits."""

    privacy: Privacy = Privacy.BOTH_PRIVATE
    error: float = DEFAULT_ERROR
    smudging: int = DEFAULT_SMUDGING

    @property
    def deviation(self) -> float:
        """Standard deviation that an answer may have, in logits: of the flood, or of the noise where there is none."""
        return self.error / 8

    @property
    def flood(self) -> float:
        return self.deviation if self.privacy is Privacy.BOTH_PRIVATE else 0.0

    @property
    def margin(self) -> int:
        """Bits by which the noise has to stay below `deviation`."""
        return max(1, self.smudging) if self.flood else 0


class Planner:
    """Plans one network; what is computed of it once serves every candidate."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        self.network = quiet_first(network, contract)
        self.contract = contract
        self.influence = Influence(self.network, contract)
        self._scales: dict[tuple[int, float, int], Scales] = {}
        self._chains: dict[int, _Chains] = {}

    def program(self, layout: Layout, demand: Demand) -> Program:
        """The program with the smallest modulus that meets the demand; raises UnsupportedHead when there is none."""
        reached = math.inf
        for share in _SHARES:
            draft = self.draft(layout, demand, share)
            stated = self._stated(draft)
            reached = stated.plan.error_bound
            if reached <= demand.error:
                stated.plan.check()
                return stated
        raise UnsupportedHead(
            f"{draft.plan.parameters}: {self._shape} reaches an error bound of {reached:.1e} of {demand.error:.1e}; "
            "a larger error bound, a narrower head or smaller weights would do"
        )

    def draft(self, layout: Layout, demand: Demand, share: int = _SHARES[0]) -> Program:
        """Like `program`, before weights are rounded: its error bound is the demand's. Raises UnsupportedHead."""
        scales = self._scales_of(layout.degree, demand, share)
        best: Program | None = None
        most = -math.inf
        for top, chains in self._chains_of(scales):
            if best is not None:
                chains = [(working, chain) for working, chain in chains if _size(chain) < _size(_bits_of(best))]
            low, high = 0, len(chains)
            while low < high:  # a larger working scale leaves less noise
                middle = (low + high) // 2
                program, margin = self._tried(scales, layout, demand, top, *chains[middle])
                most = max(most, margin)
                if program is not None and margin >= demand.margin:
                    best, high = program, middle
                else:
                    low = middle + 1
        if best is None:
            raise UnsupportedHead(self._refusal(scales, demand, most))
        return best

    # What repeats.

    def _scales_of(self, degree: int, demand: Demand, share: int) -> Scales:
        key = (degree, demand.error, share)
        if key not in self._scales:
            # At least so large that the check's margin fits the window.
            least = max(2.0**-3, 1.5 * demand.error / (WINDOW / 2 - 1))
            answer_range = power_of_two(max(self.influence.largest, least))
            self._scales[key] = Scales(self.influence, degree, demand.error / share, answer_range)
        return self._scales[key]

    def _chains_of(self, scales: Scales) -> _Chains:
        """The chains that leave room for a special prime as large as any other."""
        if id(scales) not in self._chains:
            limit, found = MAX_MODULUS_BITS[scales.degree], []
            for top in _TOP_BITS:
                chains = [(working, scales.chain(working, top)) for working in _WORKING_BITS]
                found.append((top, [(w, chain) for w, chain in chains if sum(chain) + max(chain) <= limit]))
            self._chains[id(scales)] = found
        return self._chains[id(scales)]

    # One candidate.

    def _tried(
        self, scales: Scales, layout: Layout, demand: Demand, top: int, working: int, chain: tuple[int, ...]
    ) -> tuple[Program | None, float]:
        """The program with that chain, and the bits by which its noise stays below `demand.deviation`."""
        special = min(MAX_PRIME_BITS, MAX_MODULUS_BITS[layout.degree] - sum(chain))
        try:
            parameters = seal.parameters(layout.degree, chain, special)
        except PlanRefused:  # too few primes of that size
            return None, -math.inf
        layers = scales.layers(layout, parameters, working, top)
        if layers is None:
            return None, -math.inf
        plan = self._plan(layout, demand, scales, parameters, layers)
        program = Program(plan, layers)
        margin = math.log2(demand.deviation / evaluation_noise(self.influence, program))
        if demand.flood:
            bits = max(0, min(MAX_SMUDGING, math.floor(margin + 1e-9)))
            program = Program(replace(plan, smudging_bits=bits), layers)
        return program, math.floor(margin + 1e-9)

    def _plan(
        self, layout: Layout, demand: Demand, scales: Scales, parameters: Parameters, layers: tuple[Layer, ...]
    ) -> SlotPlan:
        degree, outputs, window = layout.degree, self.network.outputs, scales.window
        unit = parameters.data_primes[0] / window
        per = min(degree // layers[-1].period, outputs, max(1, MAX_READING // degree))
        if demand.flood:
            per = min(per, forged_key_cap(degree, window, demand.flood))
        return SlotPlan(
            parameters=parameters,
            privacy=demand.privacy,
            features=self.network.features,
            outputs=outputs,
            answers_per_product=-(-outputs // -(-outputs // per)),
            input_scale=int(layers[0].scale_in),
            answer_range=scales.answer_range,
            flood=demand.flood,
            smudging_bits=0,
            error_bound=demand.error,
            failure_probability=float(f"{outputs * math.erfc(SIGMAS / math.sqrt(2)):.1e}"),
            answer_bits=answer_bits(parameters, unit, demand.flood) if demand.flood else 0,
            inputs=layout.inputs,
            period=layers[0].period,
            parts=layout.parts,
            shifts=layout.shifts,
            unit=unit,
            moves=_moves(layers, degree),
            products_at=max(
                [1, *(x.level_square for x in layers if x.degree > 2), *(x.level_out for x in layers[:-1])]
            ),
        )

    def _stated(self, program: Program) -> Program:
        """The program with the error bound that it reaches."""
        plan = program.plan
        try:
            plan.check()
        except PlanRefused as problem:
            raise UnsupportedHead(f"{self._shape} {problem.message}; fewer outputs would do") from None
        noise = evaluation_noise(self.influence, program)
        step = plan.first_prime / plan.answer_modulus / plan.unit if plan.answer_bits else 0.0
        deviation = math.hypot(plan.flood, noise, rounding_noise(plan.parameters.degree) * step)
        exact = rounding_error(self.influence, compile_network(self.network, program))
        bound = two_digits(exact + 1 / plan.unit + SIGMAS * deviation)
        return Program(replace(plan, error_bound=bound), program.layers)

    # Refusals.

    @property
    def _shape(self) -> str:
        degrees = ", ".join(str(hidden.degree) for hidden in self.network.hidden)
        widths = " -> ".join(map(str, self.network.widths))
        return f"a head {widths} with activations of degree {degrees}, logits below {power_of_two(self.influence.largest):g},"

    def _refusal(self, scales: Scales, demand: Demand, most: float) -> str:
        """Why no chain meets the demand, and what would fit."""
        degree, limit = scales.degree, MAX_MODULUS_BITS[scales.degree]
        ways = [] if degree == DEGREES[-1] else ["a larger ring"]
        if most > -math.inf:
            missing = demand.margin - int(most)
            said = f"reaches {int(most)} bits between noise and allowed error, {demand.margin} are wanted"
            ways += [f"{int(most)} smudging bits"] * bool(demand.flood and most >= 1)
            ways.append(f"an error bound of {two_digits(demand.error * 2.0**missing):g}")
        else:
            chain = scales.chain(_WORKING_BITS[0], 0)
            least = sum(chain) + max(chain)
            said = (
                f"needs {least} bits of modulus or more at an error bound of {two_digits(demand.error):g}, and has {limit}"
                if least > limit
                else f"has {limit} bits of modulus, which leave no room for its scales"
            )
            ways += self._coarser(scales, demand)
        ways += ["fewer hidden layers", "lower degrees", "narrower layers", "smaller weights"]
        return f"N={degree}: {self._shape} {said}; what helps: {', '.join(ways)}"

    def _coarser(self, scales: Scales, demand: Demand) -> list[str]:
        """The least error bound, by powers of ten, at which the modulus suffices, if any."""
        for digits in range(1, 10):
            error = demand.error * 10.0**digits
            if error > self.influence.largest / 10:
                break
            chain = replace(scales, error=scales.error * 10.0**digits).chain(_WORKING_BITS[0], 0)
            if sum(chain) + max(chain) <= MAX_MODULUS_BITS[scales.degree]:
                return [f"an error bound of {error:g}"]
        return []


def _bits_of(program: Program) -> list[int]:
    return [prime.bit_length() for prime in program.plan.parameters.data_primes]


def _size(bits: Sequence[int]) -> tuple[int, int]:
    """Primes, each of which every step is paid for, then the bits that travel for a coefficient."""
    return len(bits), sum(map(packed_width, bits))


def _moves(layers: tuple[Layer, ...], degree: int) -> tuple[tuple[int, int], ...]:
    """The automorphisms of a program with the highest level at which each is applied."""
    found: dict[int, int] = {}

    def use(galois: int, level: int) -> None:
        found[galois] = max(level, found.get(galois, 0))

    for index, layer in enumerate(layers):
        if layer.babies > 1:
            use(element(1, degree), layer.level_in)
        if layer.giants > 1:
            use(element(layer.babies, degree), layer.level_in)
        for step, slots in enumerate(layer.folds):
            use(element(slots, degree), layer.level_in if step < layer.early else layer.level)
        if index == 0:
            use(conjugation(degree), layer.level)
    return tuple(sorted(found.items()))

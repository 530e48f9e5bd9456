"""The server's half of the slot plan: a network compiled to plaintexts, and its evaluation. See `program`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.answers import AnswerWriter
from secure_infer.ckks.embedding import conjugation, element
from secure_infer.ckks.keymaterial import SwitchingKeys
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.slots.compiled import compile_network
from secure_infer.ckks.slots.plan import SlotPlan
from secure_infer.ckks.slots.program import Layer, Program
from secure_infer.errors import InternalFault
from secure_infer.heads.network import Network

Plaintexts = dict[int, seal.Plaintext]


class SlotEvaluator:
    """A network with hidden layers, compiled for a program."""

    def __init__(self, network: Network, program: Program) -> None:
        program.plan.check()
        self.plan: SlotPlan = program.plan
        self._program = program
        self._ring = seal.ring(self.plan.parameters)
        compiled = compile_network(network, program)
        self._matrices = [
            [[self._plaintext(p, layer.level_in) for p in row] for row in made.diagonals]
            for layer, made in zip(program.layers, compiled, strict=True)
        ]
        self._activations = [
            [self._coefficients(layer, polynomials) for polynomials in made.activations]
            for layer, made in zip(program.layers, compiled, strict=True)
        ]
        self._answers = AnswerWriter(self.plan, network.output.bias)

    def _plaintext(self, polynomial: NDArray[np.float64], level: int) -> seal.Plaintext | None:
        """None for zero, which SEAL refuses to multiply by."""
        return self._ring.plaintext(polynomial, level) if polynomial.any() else None

    def _coefficients(self, layer: Layer, polynomials: dict[int, NDArray[np.float64]]) -> Plaintexts:
        level = layer.level_square if layer.degree > 2 else layer.level
        found = {}
        for power, polynomial in polynomials.items():
            if (plaintext := self._plaintext(polynomial, level)) is not None:
                found[power] = plaintext
        return found

    def evaluate(
        self,
        query: Sequence[seal.Ciphertext],
        blind: Callable[[], seal.Ciphertext] | None,
        keys: SwitchingKeys | None = None,
    ) -> list[bytes]:
        """The answers, one a product, to one query of `plan.inputs` ciphertexts.

        blind: returns a fresh blind, used once; required exactly when the plan is both-private. keys: the client's.
        """
        if (blind is None) != (self.plan.privacy is Privacy.INPUT_PRIVATE) or keys is None:
            raise InternalFault(f"a {self.plan.privacy} plan was evaluated with the wrong blinding, or without keys")
        inputs = list(query)
        answers: list[bytes] = []
        for index, layer in enumerate(self._program.layers):
            argument = self._affine(layer, self._matrices[index], inputs, keys, conjugate=index == 0)
            last = index + 1 == len(self._program.layers)
            powers = self._powers(layer, argument, keys)
            for product, coefficients in enumerate(self._activations[index]):
                value = self._activate(layer, powers, coefficients)
                self._ring.drop(value, 1 if last else layer.level_out)
                self._ring.relinearise(value, keys.relin)
                if not last:
                    inputs = [value]
                    continue
                if blind is not None:
                    self._ring.add_to(value, blind())
                answers.append(self._answers.write(product, *self._ring.finish(value)))
        return answers

    def _affine(
        self,
        layer: Layer,
        diagonals: list[list[seal.Plaintext | None]],
        inputs: Sequence[seal.Ciphertext],
        keys: SwitchingKeys,
        *,
        conjugate: bool,
    ) -> seal.Ciphertext:
        """The arguments of a layer's activations, at `layer.level`, repeated over all copies."""
        ring, degree = self._ring, self.plan.parameters.degree
        steps: list[list[seal.Ciphertext]] = []
        for ciphertext in inputs:
            babies = [ciphertext]
            while len(babies) < layer.babies:
                babies.append(ring.automorphism(babies[-1], element(1, degree), keys.galois))
            steps.append(babies)
        total: seal.Ciphertext | None = None
        for giant in reversed(range(layer.giants)):  # Horner: one key for all giant steps
            if total is not None:
                total = ring.automorphism(total, element(layer.babies, degree), keys.galois)
            for babies, row in zip(steps, diagonals, strict=True):
                for baby, plaintext in zip(babies, row[giant * layer.babies :], strict=False):
                    if plaintext is None:
                        continue
                    term = ring.multiply(baby, plaintext)
                    if total is None:
                        total = term
                    else:
                        ring.add_to(total, term)
        if total is None:
            raise InternalFault("a compiled layer has no weights")
        for step, slots in enumerate(layer.folds):
            if step == layer.early:
                ring.drop(total, layer.level)
            ring.add_to(total, ring.automorphism(total, element(slots, degree), keys.galois))
        ring.drop(total, layer.level)
        if conjugate:
            ring.add_to(total, ring.automorphism(total, conjugation(degree), keys.galois))
        return total

    def _powers(self, layer: Layer, argument: seal.Ciphertext, keys: SwitchingKeys) -> list[seal.Ciphertext]:
        """t, and t² for degrees above two, at one level."""
        if layer.degree == 2:
            return [argument]
        square = self._ring.square(argument)
        self._ring.drop(square, layer.level_square)
        self._ring.relinearise(square, keys.relin)
        return [self._ring.lower(argument, layer.level_square), square]

    def _activate(self, layer: Layer, powers: Sequence[seal.Ciphertext], coefficients: Plaintexts) -> seal.Ciphertext:
        """The activation in three parts, at scale `layer.product_scale`."""
        ring, t = self._ring, powers[0]
        outer = powers[-1] if layer.degree == 4 else t
        inner = ring.multiply(powers[-1], coefficients[layer.degree])
        lower = layer.degree - 1
        if layer.degree > 2:
            if lower in coefficients:
                ring.add_to(inner, ring.multiply(t, coefficients[lower]))
            lower -= 1
        if lower in coefficients:
            ring.add_plain_to(inner, coefficients[lower])
        value = ring.product(outer, inner)
        if layer.degree == 4 and 1 in coefficients:
            ring.add_to(value, ring.multiply(t, coefficients[1]))
        return value

"""Two parties, a dealer and a client in one process, for tests: what is evaluated, and all that each party sees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secure_infer.heads import Head
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.correlations import MOD, Bundle, Correlations, Need, Recipe, deal
from secure_infer.mpc.evaluate import Evaluator, Tensor
from secure_infer.mpc.link import MemoryLink, memory_links
from secure_infer.mpc.masks import expand
from secure_infer.mpc.program import Largest, Positive, Program, Weights, row_class
from secure_infer.mpc.ring import Matrix, Words, decode
from secure_infer.mpc.sharing import encode_fairly, split
from secure_infer.mpc.streams import KeyedStream, fresh_key


def in_step(work: Callable[[int], Any], seconds: float = 60.0) -> list[Any]:
    """work(0) and work(1) in two threads; their results, or the first error."""
    results: list[Any] = [None, None]
    errors: list[BaseException] = []

    def one(party: int) -> None:
        try:
            results[party] = work(party)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(party,), daemon=True) for party in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if errors:
        raise errors[0]
    return results


def run_protocol(
    protocol: Callable[[Words, MemoryLink, Correlations, int], Words], need: tuple[Need, ...], x: Words
) -> tuple[list[Words], tuple[MemoryLink, MemoryLink]]:
    """Both shares of protocol(x), from fresh shares and correlations, and the links."""
    recipe = Recipe("00", 1, need)
    correlations = [Correlations(b, recipe, party) for party, b in enumerate(deal(recipe))]
    shares, links = split(x), memory_links()

    def work(party: int) -> Words:
        share = protocol(shares[party], links[party], correlations[party], party)
        correlations[party].done()
        return share

    return in_step(work), links


@dataclass
class Seen:
    """All that one party had in one request: its half, its bundle and seeds, what it received, what it answered."""

    share: Words
    bundle: Bundle | None
    received: list[bytes] = field(default_factory=list)
    answer: Words = field(default_factory=lambda: np.zeros(0, np.uint64))


class TwoParties:
    """A head evaluated in memory. `seen`: the latest request as each party saw it."""

    def __init__(self, head: Head, **options: Any) -> None:
        compiled = compile_head(head, **options)
        self.head, self.program = head, Program.from_json(compiled.program.as_json())
        halves = [compiled.tensors, compiled.tensors]
        if self.program.weights is Weights.SHARED:
            halves = [[], []]
            for tensor in compiled.tensors:
                pairs = split(tensor.weight), split(tensor.bias)
                for party in (0, 1):
                    halves[party].append(Tensor(pairs[0][party], pairs[1][party]))
        self.evaluators = [Evaluator(self.program, half, party) for party, half in enumerate(halves)]
        self.fixed: dict[int, Matrix] = {}
        self.opening = memory_links()
        if self.evaluators[0].mask_shapes:
            self._open_masks()
        self.links = memory_links()
        self.seen: list[Seen] = []

    def _open_masks(self) -> None:
        masks = [expand(fresh_key(), self.evaluators[0].mask_shapes) for _ in (0, 1)]
        self.fixed = {tensor: Matrix(masks[0][tensor] + masks[1][tensor]) for tensor in masks[0]}
        in_step(lambda party: self.evaluators[party].open_masks(self.opening[party], b"epoch", masks[party]))

    def shares(self, x: np.ndarray) -> list[Words]:
        """Shares of the answers for rows x (B, d)."""
        carried = encode_fairly(x, self.program.fraction)
        padded = np.zeros((row_class(len(x)), x.shape[1]), dtype=np.uint64)
        padded[: len(x)] = carried
        halves, zero = split(padded), fresh_key()
        recipe = self.program.recipe(len(x))
        bundles = (None, None) if recipe is None else deal(recipe, self.fixed)
        self.links = memory_links()

        def work(party: int) -> Words:
            correlations = None if recipe is None else Correlations(bundles[party], recipe, party)
            stream = KeyedStream(zero)
            return self.evaluators[party].run(halves[party], self.links[party], correlations, stream, b"epoch")

        answers = in_step(work)
        self.seen = [
            Seen(halves[party], bundles[party], list(self.links[1 - party].log), answers[party]) for party in (0, 1)
        ]
        return [answer[: len(x)] for answer in answers]

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Logits (B, K), or for label-only programs what holds (B, K), as booleans."""
        first, second = self.shares(x)
        last = self.program.steps[-1]
        if isinstance(last, Largest):
            return MOD.join(first, second) == 0
        if isinstance(last, Positive):
            return (first ^ second).astype(bool)
        return decode(first + second, self.program.answer_fraction)

"""What a request of two parties takes: bytes on every way, rounds, correlations, and computing, measured on this machine.

Computing depends on shapes alone, so that weights made up on the spot serve for a model that is not here.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from secure_infer.ckks.link import Link
from secure_infer.mpc.correlations import Bundle, Correlations, Recipe, deal
from secure_infer.mpc.evaluate import Evaluator, Tensor
from secure_infer.mpc.link import MemoryLink, memory_links
from secure_infer.mpc.program import Affine, Comparisons, Program, Weights, row_class
from secure_infer.mpc.ring import LIMB, Matrix, Words
from secure_infer.mpc.streams import KeyedStream, fresh_key, uniform_words

REPEATS = 5
_EPOCH = b"measured"
_SEEDS = 64
"""Bytes of both parties' seeds of one request."""


@dataclass(frozen=True)
class Kind:
    """Correlations of one kind. pieces: how many; bytes: of their corrections."""

    kind: str
    pieces: int
    bytes: int


@dataclass(frozen=True)
class Taken:
    """What `records` take in so many requests, one after another. rounds: between the parties. bytes_up, bytes_down: of both
    halves; link_bytes: that each party sends the other; correlation_bytes: from the dealer to both. compute: seconds of the
    slower party, None where they cannot be measured here."""

    records: int
    requests: int
    rounds: int
    bytes_up: int
    bytes_down: int
    link_bytes: int
    correlation_bytes: int
    correlations: tuple[Kind, ...]
    compute: float | None

    def seconds(self, link: Link) -> float:
        """On links like that between all of them: rounds, bytes, computing. gRPC and TLS come on top.

        Both parties send at once, so a round takes one way, half a round trip; so does the message that starts a request.
        """
        between = 8 * self.link_bytes / link.up + (self.requests + self.rounds) / 2 * link.round_trip
        return link.transfer(self.bytes_up, self.bytes_down, self.requests) + between + (self.compute or 0.0)


def taken(program: Program, records: int, most: int) -> Taken:
    """What that many records take, in requests of at most `most`; the parties pad each to the next class of rows."""
    sizes = Counter([most] * (records // most) + [records % most] * (records % most > 0))
    kinds: dict[str, Kind] = {}
    seconds: list[float | None] = []
    for rows, times in sizes.items():
        recipe = program.recipe(rows)
        for need in () if recipe is None else recipe.needs:
            before = kinds.get(need.kind, Kind(need.kind, 0, 0))
            size = 8 * sum(field.words for field in need.derived())
            kinds[need.kind] = Kind(need.kind, before.pieces + times, before.bytes + times * size)
        measured = program.comparisons is not Comparisons.CRYPTEN
        seconds.append(times * _computing(program, row_class(rows), recipe) if measured else None)
    requests = sum(sizes.values())
    return Taken(
        records=records,
        requests=requests,
        rounds=requests * program.rounds,
        bytes_up=2 * program.share_bytes(records),
        bytes_down=2 * program.answer_bytes(records),
        link_bytes=sum(times * program.link_bytes(row_class(rows)) for rows, times in sizes.items()),
        correlation_bytes=sum(kind.bytes for kind in kinds.values()) + requests * _SEEDS * bool(kinds),
        correlations=tuple(kinds.values()),
        compute=None if None in seconds else sum(one or 0.0 for one in seconds),
    )


class _Replay:
    """A link whose peer said everything before: what is left is this party's own work."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = iter(messages)
        self.rounds = self.sent = 0

    def exchange(self, payload: bytes) -> bytes:
        return next(self._messages)


def _computing(program: Program, rows: int, recipe: Recipe | None) -> float:
    """Seconds of the slower party, correlations at hand: the median of a few runs."""
    evaluators, fixed = _made_up(program)
    bundles: tuple[Bundle, Bundle] | None = None if recipe is None else deal(recipe, fixed)
    shares = [uniform_words(rows * program.features).reshape(rows, program.features) for _ in (0, 1)]
    zero = fresh_key()

    def evaluate(party: int, link: MemoryLink | _Replay) -> float:
        own = None if recipe is None or bundles is None else Correlations(bundles[party], recipe, party)
        started = perf_counter()
        evaluators[party].run(shares[party], link, own, KeyedStream(zero), _EPOCH)
        return perf_counter() - started

    links = memory_links()
    _together(lambda party: evaluate(party, links[party]))
    slower = [median(evaluate(party, _Replay(links[1 - party].log)) for _ in range(REPEATS)) for party in (0, 1)]
    return max(slower)


def _made_up(program: Program) -> tuple[tuple[Evaluator, Evaluator], Mapping[int, Matrix]]:
    """Evaluators with random weights of the program's shapes, and the fixed masks of shared ones."""
    clear = program.weights is Weights.REPLICATED
    affine = {step.tensor: step for step in program.steps if isinstance(step, Affine)}
    tensors = [_tensor(affine[index], clear) for index in sorted(affine)]
    evaluators = Evaluator(program, tensors, 0), Evaluator(program, tensors, 1)
    shapes = evaluators[0].mask_shapes
    masks = [{i: uniform_words(a * b).reshape(a, b) for i, (a, b) in shapes.items()} for _ in (0, 1)]
    if shapes:
        links = memory_links()
        _together(lambda party: evaluators[party].open_masks(links[party], _EPOCH, masks[party]))
    return evaluators, {i: Matrix(masks[0][i] + masks[1][i]) for i in shapes}


def _tensor(step: Affine, clear: bool) -> Tensor:
    words = uniform_words(step.inputs * step.width).reshape(step.inputs, step.width)
    weight: Words = words.view("int64").__rshift__(64 - LIMB + 1).view("uint64") if clear else words
    return Tensor(weight, uniform_words(step.width))


def _together(work: Callable[[int], object]) -> None:
    other = threading.Thread(target=work, args=(1,))
    other.start()
    work(0)
    other.join()

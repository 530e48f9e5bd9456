"""CrypTen's protocols over our link and correlations, against plain arithmetic and against our own comparisons."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import CorrelationMisuse, ForbiddenRandomness, MissingExtra, PeerFailure
from secure_infer.mpc import comparison
from secure_infer.mpc.correlations import Correlations, Need, Recipe, Shares, deal
from secure_infer.mpc.crypten import available
from secure_infer.mpc.crypten.needs import And, labels_needs, link_bytes, positive_needs, relu_needs
from secure_infer.mpc.generators import untouched
from secure_infer.mpc.link import MemoryLink, memory_links
from secure_infer.mpc.ring import Words
from secure_infer.mpc.sharing import join, split

try:
    available()
except MissingExtra as missing:
    pytest.skip(missing.message, allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from secure_infer.mpc.crypten import protocols, seams
from secure_infer.mpc.crypten.imports import load

Protocol = Callable[[Words, Any, Any, int], Words]
RNG = np.random.default_rng(7)
EDGES = [0, 1, -1, 2, -2, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**62, -(2**62), 2**63 - 1, 1 - 2**63]


class RefuseSeeded(TorchDispatchMode):
    """Below Python's names: every operator that torch itself marks as drawing from a generator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ForbiddenRandomness(str(func))
        return func(*args, **(kwargs or {}))


def words(values: Any) -> Words:
    return np.asarray(values, dtype=np.int64).view(np.uint64)


class Run:
    """Both parties' halves of one protocol, in two threads. outputs: their shares; errors: what they raised."""

    def __init__(
        self, protocol: Protocol, needs: tuple[Need, ...], shares: tuple[Words, Words], seconds: float = 10.0
    ) -> None:
        recipe = Recipe("00", 1, needs)
        self.correlations = [Correlations(bundle, recipe, party) for party, bundle in enumerate(deal(recipe))]
        self.links: tuple[MemoryLink, MemoryLink] = memory_links(seconds)
        self.outputs: list[Any] = [None, None]
        self.errors: list[BaseException] = []
        self.again(protocol, shares)

    def again(self, protocol: Protocol, shares: tuple[Words, Words]) -> None:
        threads = [threading.Thread(target=self._party, args=(protocol, shares[p], p)) for p in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _party(self, protocol: Protocol, share: Words, party: int) -> None:
        try:
            with RefuseSeeded():
                self.outputs[party] = protocol(share, self.links[party], self.correlations[party], party)
        except BaseException as error:
            self.errors.append(error)

    @property
    def result(self) -> Words:
        assert not self.errors, self.errors
        for side in self.correlations:
            side.done()
        return join(*self.outputs)


def relu(x: Words, shares: tuple[Words, Words] | None = None) -> Words:
    return Run(protocols.relu, relu_needs(x.size), shares or split(x)).result


def labels(y: Words) -> Words:
    return Run(protocols.argmax, labels_needs(*y.shape), split(y)).result


class Recorder:
    """In the place of correlations and link: notes what is asked for, and answers with zeros."""

    id = bytes(16)

    def __init__(self) -> None:
        self.needs: list[Need] = []
        self.rounds = self.sent = 0

    def take(self, need: Need) -> Shares:
        self.needs.append(need)
        return {field.name: np.zeros(field.shape, np.uint64) for field in (*need.masks(), *need.derived())}

    def exchange(self, payload: bytes) -> bytes:
        self.rounds += 1
        self.sent += len(payload)
        return bytes(len(payload))


# Values.


def test_relu_of_edges_and_of_many() -> None:
    x = words([*EDGES, *RNG.integers(-(2**62), 2**62, 100), *RNG.integers(-(2**18), 2**18, 100)]).reshape(2, -1)
    np.testing.assert_array_equal(relu(x).view(np.int64), np.maximum(x.view(np.int64), 0))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1 - 2**63, 2**63 - 1), min_size=1, max_size=8), st.integers(-(2**63), 2**63 - 1))
def test_relu_for_any_sharing(values: list[int], share: int) -> None:
    x = words(values)
    first = np.full_like(x, words(share))
    np.testing.assert_array_equal(relu(x, (first, x - first)).view(np.int64), np.maximum(values, 0))


def test_positive_is_a_bit_above_zero_alone() -> None:
    x = [*(value for value in EDGES if abs(value) < 2**31), 5 + 2**40, -5 + 2**40]
    run = Run(protocols.positive, positive_needs(len(x)), split(words(x)))
    assert not run.errors
    expected = [value > 0 for value in x[:-2]] + [True, False]  # the low 32 bits decide
    np.testing.assert_array_equal(run.outputs[0] ^ run.outputs[1], expected)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (5, 3), (7, 10), (1, 130)])
def test_labels_are_the_largest(rows: int, classes: int) -> None:
    y = RNG.permuted(RNG.integers(-(2**30), 2**30, (rows, classes)), axis=1)
    expected = np.eye(classes, dtype=np.uint64)[y.argmax(axis=1)]
    np.testing.assert_array_equal(labels(words(y)), expected)


def test_one_of_equal_numbers_is_chosen_at_random() -> None:
    y = np.tile([[5, -3, 5, 4]], (60, 1))
    chosen = labels(words(y))
    assert (chosen.sum(axis=1) == 1).all()
    assert set(chosen.argmax(axis=1)) == {0, 2}


# The two engines agree.


def test_both_engines_give_the_same_relu() -> None:
    x = words([*range(-3, 4), *RNG.integers(1 - 2**31, 2**31, 200)])
    shares = split(x)
    ours = Run(comparison.relu, (comparison.Relu(x.size),), shares).result
    np.testing.assert_array_equal(relu(x, shares), ours)


def test_both_engines_give_the_same_signs() -> None:
    x = words([*range(-3, 4), *RNG.integers(1 - 2**31, 2**31, 100)])
    shares = split(x)
    theirs = Run(protocols.positive, positive_needs(x.size), shares)
    ours = Run(comparison.positive, (comparison.Signs(x.size),), shares)
    assert not theirs.errors + ours.errors
    np.testing.assert_array_equal(theirs.outputs[0] ^ theirs.outputs[1], ours.outputs[0] ^ ours.outputs[1])


def test_both_engines_give_the_same_labels() -> None:
    y = words(RNG.integers(-(2**29), 2**29, (20, 6)))
    ours = Run(comparison.argmax, (comparison.Argmax(20, 6),), split(y)).result % np.uint64(2**31 - 1)
    np.testing.assert_array_equal(labels(y) == 1, ours == 0)


# Correlations.


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 21, 128, 129, 131])
def test_crypten_asks_for_what_the_shapes_say(party: int, classes: int) -> None:
    asked = Recorder()
    protocols.argmax(np.zeros((2, classes), np.uint64), asked, asked, party)  # type: ignore[arg-type]
    needs = labels_needs(2, classes)
    assert tuple(asked.needs) == needs
    assert (asked.rounds, asked.sent) == (len(needs), link_bytes(needs))


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 65])
def test_relu_and_signs_too(party: int, count: int) -> None:
    for protocol, needs in ((protocols.relu, relu_needs(count)), (protocols.positive, positive_needs(count))):
        asked = Recorder()
        protocol(np.zeros(count, np.uint64), asked, asked, party)  # type: ignore[arg-type]
        assert tuple(asked.needs) == needs
        assert (asked.rounds, asked.sent) == (len(needs), link_bytes(needs))


def test_correlations_serve_once() -> None:
    shares = split(words([3, -4]))
    run = Run(protocols.relu, relu_needs(2), shares)
    sent = [link.sent for link in run.links]
    run.again(protocols.relu, shares)
    assert [type(error) for error in run.errors] == [CorrelationMisuse] * 2
    assert [link.sent for link in run.links] == sent


def test_correlations_for_another_shape_are_refused_before_a_word_is_said() -> None:
    run = Run(protocols.relu, relu_needs(3), split(words([3, -4])))
    assert [type(error) for error in run.errors] == [CorrelationMisuse] * 2
    assert [link.sent for link in run.links] == [0, 0]


def test_what_is_left_over_is_noticed() -> None:
    run = Run(protocols.relu, (*relu_needs(2), And(1)), split(words([3, -4])))
    with pytest.raises(CorrelationMisuse, match="left over"):
        run.correlations[0].done()


def test_two_runs_on_the_same_shares_share_no_message() -> None:
    shares = split(words(EDGES))
    one, two = (Run(protocols.relu, relu_needs(len(EDGES)), shares) for _ in range(2))
    # One round opens masked bits, a word each: 0 or 1.
    said = [
        set(np.frombuffer(b"".join(link.log), np.uint64).tolist()) - {0, 1} for run in (one, two) for link in run.links
    ]
    assert all(a.isdisjoint(b) for i, a in enumerate(said) for b in said[:i])


# CrypTen's globals.


@pytest.mark.parametrize("failing", range(1, 10))
def test_a_lost_peer_is_not_swallowed_in_any_round(failing: int) -> None:
    class Lost(Recorder):
        def exchange(self, payload: bytes) -> bytes:
            if self.rounds == failing - 1:
                raise PeerFailure("peer: lost")
            return super().exchange(payload)

    lost = Lost()
    with pytest.raises(PeerFailure):
        protocols.relu(np.zeros(2, np.uint64), lost, lost, 0)  # type: ignore[arg-type]
    assert lost.rounds == failing - 1


def test_calls_run_side_by_side() -> None:
    inputs = [words(RNG.integers(-(2**40), 2**40, size)) for size in (3, 3, 50, 7)]
    found: list[Any] = [None] * len(inputs)

    def work(i: int) -> None:
        found[i] = relu(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, result in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(result.view(np.int64), np.maximum(x.view(np.int64), 0))


def test_no_generator_is_drawn_from() -> None:
    load()
    with untouched():
        relu(words(EDGES))
        labels(words(np.arange(12).reshape(3, 4)))


GUARDED = """
from secure_infer.mpc import generators
generators.forbid()
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from secure_infer.errors import ForbiddenRandomness
from secure_infer.mpc.correlations import Correlations, Recipe, deal
from secure_infer.mpc.crypten import protocols
from secure_infer.mpc.crypten.needs import relu_needs
from secure_infer.mpc.link import memory_links
from secure_infer.mpc.sharing import split
recipe = Recipe("00", 1, relu_needs(2))
bundles, links, shares = deal(recipe), memory_links(), split(np.array([-7, 7]).view(np.uint64))
work = lambda p: protocols.relu(shares[p], links[p], Correlations(bundles[p], recipe, p), p)
print(sum(ThreadPoolExecutor(2).map(work, (0, 1))).tolist())
try: protocols.seams.torch.rand(1)
except ForbiddenRandomness: print("refused")
"""


def test_it_runs_where_generators_were_forbidden_before_torch_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["[0, 7]", "refused"], done.stderr


@contextmanager
def stock_settings() -> Iterator[Any]:
    """CrypTen as another part of the process might have left it."""
    crypten = load()
    crypten.communicator.DistributedCommunicator = type("Stock", (), {})
    crypten.mpc.__SUPPORTED_PROVIDERS = {"TFP": crypten.mpc.provider.TrustedFirstParty()}
    crypten.cfg.load_config(None)
    crypten.generators["local"] = {torch.device("cpu"): torch.Generator()}
    crypten.set_grad_enabled(True)
    yield crypten


def test_every_call_sets_its_seams_anew() -> None:
    with stock_settings(), untouched():
        np.testing.assert_array_equal(relu(words([-5, 5])), [0, 5])


def test_crypten_does_nothing_outside_a_call() -> None:
    seams.bind()
    crypten = load()
    assert not crypten.is_initialized()
    with pytest.raises(AttributeError):
        crypten.init()
    with pytest.raises(RuntimeError, match="not initialized"):
        crypten.cryptensor([1.0])
    with pytest.raises(CorrelationMisuse):
        crypten.common.rng.generate_random_ring_element((3,))


def test_a_generator_of_torch_is_refused() -> None:
    seams.bind()
    crypten = load()
    for draw in (crypten.common.rng.generate_random_ring_element, crypten.common.rng.generate_kbit_random_tensor):
        with pytest.raises(ForbiddenRandomness):
            draw((3,), generator=torch.Generator())

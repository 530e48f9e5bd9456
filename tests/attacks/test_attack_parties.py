"""Claims: what parties say to each other is fresh in every request, and a client's answer shares say no more than their sum.

Adversaries: whoever reads the link between two real parties; a client, who chooses both of its shares and may ask the same
again and again. Unprotected variants: without re-randomisation the answer share of a local last layer is a fixed function of
the client's own share, which gives a linear head's words one query a row, exactly; and behind hidden layers it stays in the
row space of the last weights, which many answers to one and the same input give away; and shares that are not random steer
whether truncation fails by single bits of hidden weights. Parties that serve two shared models of one program under one mask
would see their difference.
What stays open: logits themselves say what logits say (`test_attack_extraction`), and behind hidden layers their last bits say
more, since they are not flooded.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mpc.two_parties import TwoParties, in_step
from secure_infer.heads import Head, Linear, Square
from secure_infer.mpc import compiler, sharefile
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.correlations import Correlations, deal
from secure_infer.mpc.evaluate import Evaluator
from secure_infer.mpc.link import memory_links
from secure_infer.mpc.program import Weights
from secure_infer.mpc.ring import Words, decode, encode
from secure_infer.mpc.sharing import split
from secure_infer.mpc.streams import KeyedStream, fresh_key
from secure_infer_client.recorder import Recorder
from secure_infer_server.mpc.epoch import Epoch
from secure_infer_server.mpc.models import PartyModels, PartyPolicy
from secure_infer_server.mpc.seats import Seat
from server.mpc.processes import FEATURES, Deployment, small_heads
from server.mpc.raw_client import Client
from shared import hidden_head, linear_head, unit_rows

FRAME = struct.Struct("<IIQQ")
DATA = 5
LOCAL = ("square", "relu")
MODELS = (*LOCAL, "square-shared", "relu-label")


# Two real parties, and a tap on the link between them.


class Tapped:
    """Parties with one lane, without TLS; `messages` are what each sent since the last look, party 0's first."""

    def __init__(self, directory: Path) -> None:
        self._taps: list[Recorder] = []
        self._at = [0, 0]
        options = (["--lanes", "1"], ["--lanes", "1"])
        self.deployment = Deployment(
            directory, small_heads(), ["square"], ["relu"], options=options, insecure=True, tap=self._tap
        )
        self.client: Client = self.deployment.client()
        self.deployment.recovers(self.client, ("linear", *MODELS))

    def _tap(self, target: str) -> str:
        self._taps.append(Recorder(target))
        return self._taps[-1].address

    def messages(self) -> list[list[bytes]]:
        (tap,) = self._taps
        found = []
        for party, record in enumerate((tap.received, tap.sent)):
            data, at, payloads = bytes(record), self._at[party], []
            while at < len(data):
                kind, _, _, length = FRAME.unpack_from(data, at)
                at += FRAME.size + length
                if kind == DATA:
                    payloads.append(data[at - length : at])
            assert at == len(data)
            self._at[party] = at
            found.append(payloads)
        return found

    def replay(self, model: str, shares: tuple[Words, Words]) -> list[Words]:
        """Answer shares of both parties for these very shares, under a fresh id."""
        halves = self.client.requests(model, np.zeros((len(shares[0]), FEATURES)))
        for half, share in zip(halves, shares, strict=True):
            half.share = share.tobytes()
        answers = self.client.send(dict(enumerate(halves)), 20)
        return [np.frombuffer(answers[party].response.share, np.uint64).reshape(len(shares[0]), -1) for party in (0, 1)]

    def close(self) -> None:
        self.deployment.end()
        for tap in self._taps:
            tap.close()


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tapped]:
    made = Tapped(tmp_path_factory.mktemp("tapped"))
    yield made
    made.close()


def fresh_shares(tapped: Tapped, model: str, rows: int) -> tuple[Words, Words]:
    return split(encode(unit_rows(rows, FEATURES), tapped.client.program(model)[1].fraction))


@pytest.mark.parametrize("model", MODELS)
def test_two_runs_on_one_input_share_no_message(tapped: Tapped, model: str) -> None:
    shares = fresh_shares(tapped, model, 16)
    tapped.messages()
    runs = []
    for _ in range(3):
        tapped.replay(model, shares)
        runs.append(tapped.messages())
    for party in (0, 1):
        for one, other in pairwise(run[party] for run in runs):
            assert [len(payload) for payload in one] == [len(payload) for payload in other]
            assert not words_of(one) & words_of(other)
            # Masked bits, a byte each, are fresh too.
            for a, b in zip(one, other, strict=True):
                assert a != b
    # Nor does either message hold what the parties or the client have: shares, inputs, answers.
    own = {int(word) for share in shares for word in share.ravel()}
    assert not own & set().union(*(words_of(messages) for run in runs for messages in run))


def words_of(payloads: list[bytes]) -> set[int]:
    """Words of the messages that consist of words, but for the shortest."""
    whole = [payload for payload in payloads if len(payload) % 8 == 0 and len(payload) >= 256]
    return {int(word) for payload in whole for word in np.frombuffer(payload, np.uint64)}


@pytest.mark.parametrize("model", MODELS)
def test_opened_words_are_uniform(tapped: Tapped, model: str) -> None:
    """Every bit of the first opening is a fair coin, though all rows are equal: six standard deviations."""
    fraction = tapped.client.program(model)[1].fraction
    shares = split(encode(np.repeat(unit_rows(1, FEATURES), 256, axis=0), fraction))
    tapped.replay(model, shares)  # what is opened once an epoch is not looked at
    tapped.messages()
    tapped.replay(model, shares)
    for payloads in tapped.messages():
        words = np.frombuffer(payloads[0], np.uint64)
        assert words.size >= 256 * 5
        ones = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(words.size)


@pytest.mark.parametrize("model", ["linear", *MODELS])
def test_answer_shares_are_fresh_for_halves_that_are_sent_again(tapped: Tapped, model: str) -> None:
    shares = fresh_shares(tapped, model, 16)
    _, program = tapped.client.program(model)
    first, second = tapped.replay(model, shares), tapped.replay(model, shares)
    for party in (0, 1):
        assert not set(first[party].ravel().tolist()) & set(second[party].ravel().tolist())
    if not program.label_only:
        sums = [decode(a + b, program.answer_fraction) for a, b in (first, second)]
        assert np.abs(sums[0] - sums[1]).max() <= 2 * program.error_bound


# In memory: with and without the zero-sharing stream.


class Zeros:
    """In place of the stream that re-randomises: the unprotected variant."""

    def words(self, count: int) -> Words:
        return np.zeros(count, np.uint64)


def answer_shares(head: Head, shares: tuple[Words, Words], *, protected: bool) -> list[Words]:
    """Both parties' answers to a client's shares; weights at both."""
    compiled, key = compile_head(head), fresh_key()
    recipe = compiled.program.recipe(len(shares[0]))
    bundles = None if recipe is None else deal(recipe)
    links = memory_links()

    def work(party: int) -> Words:
        evaluator = Evaluator(compiled.program, compiled.tensors, party)
        correlations = None if recipe is None or bundles is None else Correlations(bundles[party], recipe, party)
        zero = KeyedStream(key) if protected else Zeros()
        return evaluator.run(shares[party], links[party], correlations, zero)  # type: ignore[arg-type]

    return in_step(work)


@pytest.mark.parametrize("protected", [False, True])
def test_words_of_a_linear_head_from_one_answer_share(protected: bool) -> None:
    """Every row of the batch is the same well-formed query; its share at party 1 is the word one at one feature."""
    head, rows = linear_head(8, 3, seed=4), 8
    compiled = compile_head(head)
    chosen = np.eye(rows, dtype=np.uint64)
    x = encode(np.repeat(unit_rows(1, 8), rows, axis=0), compiled.program.fraction)
    answers = answer_shares(head, (x - chosen, chosen), protected=protected)
    logits = decode(answers[0] + answers[1], compiled.program.answer_fraction)
    assert np.abs(logits - head.evaluate(unit_rows(1, 8))).max() <= compiled.program.error_bound
    found, weights = answers[1], compiled.tensors[0].weight
    assert (found == weights).all() == (not protected)
    if protected:
        assert not (found == weights).any()


@pytest.mark.parametrize("protected", [False, True])
def test_the_last_layer_behind_a_hidden_one_from_one_input(protected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All queries are one input. Answer shares z W, z uniform, four words: what the last four of eight columns of W are, given
    the first four, follows from a few answers by linear algebra mod 2^64."""
    if not protected:
        monkeypatch.setattr(compiler, "FLOOD", 0.0)
    head = next(h for seed in range(50) if odd(last_weights(h := hidden_head((6, 2, 8), seed=seed))[:, :4]))
    weights = last_weights(head)
    fraction = compile_head(head).program.fraction
    shares = split(encode(np.repeat(unit_rows(1, 6), 64, axis=0), fraction))
    seen = answer_shares(head, shares, protected=protected)[1]  # without the bias, which is party 0's
    parts = [seen[k : k + 4] for k in range(60) if odd(seen[k : k + 4, :4])]
    assert parts
    relations = [inverse(part[:, :4]) @ part[:, 4:] for part in parts]
    true = inverse(weights[:, :4]) @ weights[:, 4:]
    assert all((relation == true).all() for relation in relations) == (not protected)
    if protected:
        assert not any((relation == true).any() for relation in relations)


@pytest.mark.parametrize("protected", [False, True])
def test_bits_of_hidden_weights_from_shares_that_are_not_random(protected: bool) -> None:
    """Whether truncation fails depends on the shares. Of a query within the contract, a client makes one share 2^63 at one
    feature: the product's is 2^63 for an odd weight there, or zero, at which truncation of a positive sum fails."""
    head = Head([Linear(np.abs(unit_rows(1, 8))), Square(), Linear([[1.0]])], labels=["a", "b"], input_bound=1.0)
    compiled = compile_head(head)
    x = np.full((8, 8), 0.25)
    chosen = np.eye(8, dtype=np.uint64) << np.uint64(63)
    first, second = answer_shares(head, (chosen, encode(x, compiled.program.fraction) - chosen), protected=protected)
    wrong = np.abs(decode(first + second, compiled.program.answer_fraction) - head.evaluate(x)) > 1e-2
    even = compiled.tensors[0].weight % np.uint64(2) == 0
    assert 0 < even.sum() < 8
    assert (wrong == even).all() == (not protected)
    if protected:
        assert not wrong.any()


@pytest.mark.parametrize("flooded", [False, True])
@pytest.mark.parametrize("weights", list(Weights))
def test_the_last_bits_of_answers_to_one_query(
    weights: Weights, flooded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unflooded answers are sums of last weights times units that truncation rounded at random, so that repeats differ by
    multiples of them. One unit, both outputs: greatest common divisors are its weights, which logits alone do not tell."""
    if not flooded:
        monkeypatch.setattr(compiler, "FLOOD", 0.0)
    head = Head([Linear(unit_rows(1, 8)), Square(), Linear([[0.77], [-0.31]])], labels=["a", "b"], input_bound=1.0)
    parties = TwoParties(head, weights=weights)
    # One and the same encoding, as a client would repeat it.
    first, second = parties.shares(np.full((128, 8), 0.3125))
    answers = (first + second).view(np.int64)
    found = np.gcd.reduce(np.diff(answers, axis=0), axis=0)
    secret = np.abs(compile_head(head).tensors[-1].weight.view(np.int64)[0])
    assert (found == secret).all() == (not flooded)
    if flooded:
        # Noise is above the steps that it hides, and within what is stated.
        assert np.diff(answers, axis=0).std() > 5 * secret.max()
        logits = answers * 2.0**-parties.program.answer_fraction
        assert np.abs(logits - head.evaluate(np.full((1, 8), 0.3125))).max() <= parties.program.error_bound


# Shared weights and the masks that they are opened under.


@pytest.mark.parametrize("protected", [False, True])
def test_the_difference_of_two_models_of_one_program(tmp_path: Path, protected: bool) -> None:
    """Parties that serve a model and another of its shape, trained anew, open both less a mask of the dealer's."""
    folders = [tmp_path / "0", tmp_path / "1"]
    head = linear_head(12, 3, seed=1)
    arrays = head.layers[0].arrays()
    negative = Linear(-arrays["weight"], -arrays["bias"])
    other = Head([negative], labels=head.labels, input_bound=head.contract.bound, input_norm=head.contract.norm)
    for folder in folders:
        folder.mkdir()
    for name, one in (("old", head), ("new", other)):
        sharefile.share_model(one, folders, name)
    parties = [PartyModels.load(folder, party, PartyPolicy()) for party, folder in enumerate(folders)]
    models = [[models.get(name) for models in parties] for name in ("old", "new")]
    assert models[0][0].program == models[1][0].program
    epoch = Epoch((Seat(0, list, list), Seat(1, list, list)))
    weights, opened = [], []
    for halves in models:
        recipes = [half.recipe(1) if protected else half.program.recipe(1) for half in halves]
        assert recipes[0] == recipes[1]
        assert recipes[0] is not None
        weights.append(sum(half.evaluator._tensors[0].weight for half in halves))
        opened.append(weights[-1] - epoch.masks(recipes[0])[0].words)
    same = (opened[0] - opened[1]) == (weights[0] - weights[1])
    assert same.all() == (not protected)
    if protected:
        assert not same.any()


def last_weights(head: Head) -> Words:
    return compile_head(head).tensors[-1].weight


def odd(matrix: Words) -> bool:
    """Whether it can be inverted mod 2^64."""
    return round(np.linalg.det((matrix & np.uint64(1)).astype(float))) % 2 == 1


def inverse(matrix: Words) -> Words:
    """Of a square matrix of words with an odd determinant (Gauss and Jordan)."""
    size = len(matrix)
    rows = np.concatenate([matrix, np.eye(size, dtype=np.uint64)], axis=1)
    for k in range(size):
        pivot = next(i for i in range(k, size) if rows[i, k] & np.uint64(1))
        rows[[k, pivot]] = rows[[pivot, k]]
        rows[k] *= np.uint64(pow(int(rows[k, k]), -1, 2**64))
        for i in range(size):
            if i != k:
                rows[i] -= rows[i, k] * rows[k]
    return rows[:, size:]


def test_the_inverse() -> None:
    matrix = np.frombuffer(secrets.token_bytes(8 * 25), np.uint64).reshape(5, 5) & ~np.uint64(1) | np.eye(
        5, dtype=np.uint64
    )
    assert (inverse(matrix) @ matrix == np.eye(5, dtype=np.uint64)).all()

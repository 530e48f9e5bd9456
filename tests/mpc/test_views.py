"""What a party sees is uniform and does not depend on the input; nothing is drawn from a generator that can be guessed.

Levels are stated: each chi-square is compared with the quantile that is exceeded with probability 1e-7, so that a run of all
of these tests fails by chance about once in 10^4.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2

from mpc.two_parties import TwoParties
from secure_infer.heads import ReLU
from secure_infer.mpc import generators
from secure_infer.mpc.program import Answers, Weights
from shared import hidden_head

LEVEL = 1e-7
SQUARE, RELU = hidden_head((24, 16, 8)), hidden_head((24, 16, 8), ReLU())
CASES = {
    "square, replicated": (SQUARE, {}),
    "square, shared": (SQUARE, {"weights": Weights.SHARED}),
    "relu, shared": (RELU, {"weights": Weights.SHARED}),
    "label, shared": (RELU, {"weights": Weights.SHARED, "answers": Answers.LABEL}),
}
INPUTS = {"zeros": np.zeros((16, 24)), "largest": np.eye(24)[np.zeros(16, dtype=int)]}


def histograms(parties: TwoParties, x: np.ndarray, runs: int) -> dict[tuple[int, str], np.ndarray]:
    """Counts (256,) of the bytes of everything that each party received or was given, by party and place."""
    found: dict[tuple[int, str], np.ndarray] = {}
    for _ in range(runs):
        parties.shares(x)
        for party, seen in enumerate(parties.seen):
            places = {"its half": seen.share.tobytes()}
            places |= {f"message {i}": message for i, message in enumerate(seen.received)}
            if seen.bundle is not None:
                places["seed"] = seen.bundle.seed
                places["corrections"] = seen.bundle.corrections
            for place, data in places.items():
                counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
                found[party, place] = found.get((party, place), 0) + counts
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_view_is_uniform_whatever_the_input(case: str) -> None:
    head, options = CASES[case]
    parties = TwoParties(head, **options)
    seen = {name: histograms(parties, x, 30) for name, x in INPUTS.items()}
    field = {"corrections"} if options.get("answers") else set()  # field elements among them are below a prime
    for (party, place), zeros in seen["zeros"].items():
        largest = seen["largest"][party, place]
        if not zeros.sum():
            continue
        for counts in (zeros, largest):
            expected = counts.sum() / 256
            statistic = ((counts - expected) ** 2 / expected).sum()
            assert place in field or statistic < chi2.isf(LEVEL, 255), (case, party, place)
        # Two samples: independent of the input, also where the distribution is not uniform over bytes.
        both = zeros + largest
        used = both > 0
        share = zeros.sum() / both.sum()
        parts = (zeros[used] - share * both[used]) ** 2 / (share * (1 - share) * both[used])
        assert parts.sum() < chi2.isf(LEVEL, used.sum() - 1), (case, party, place)


def test_a_message_without_its_mask_would_be_seen() -> None:
    """The test above has teeth: an opening that is not masked is far from uniform."""
    counts = np.bincount(np.frombuffer(np.arange(4000, dtype=np.uint64).tobytes(), np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() > 100 * chi2.isf(LEVEL, 255)


@pytest.mark.parametrize("case", CASES)
def test_two_runs_on_one_input_share_no_message(case: str) -> None:
    head, options = CASES[case]
    parties = TwoParties(head, **options)
    runs = []
    for _ in range(2):
        parties.shares(INPUTS["largest"])
        # Messages of a few bytes may be equal by chance.
        runs.append(
            {m for s in parties.seen for m in (*s.received, s.answer.tobytes(), s.share.tobytes()) if len(m) > 15}
        )
    assert runs[0]
    assert runs[0].isdisjoint(runs[1])


@pytest.mark.parametrize("case", CASES)
def test_no_generator_moves(case: str) -> None:
    head, options = CASES[case]
    with generators.untouched():
        parties = TwoParties(head, **options)
        parties.shares(INPUTS["zeros"])


def test_everything_works_where_generators_are_forbidden() -> None:
    """In a process of its own, since the guard cannot be lifted: sharing, dealing, masks and evaluation draw from none."""
    program = """
import sys
sys.path.insert(0, "tests")
from mpc.two_parties import TwoParties
from shared import hidden_head
from secure_infer.heads import ReLU
from secure_infer.mpc import generators
from secure_infer.mpc.program import Answers, Weights
import numpy as np
head = hidden_head((24, 16, 8), ReLU())
generators.forbid()
TwoParties(head, weights=Weights.SHARED, answers=Answers.LABEL).evaluate(np.eye(24)[:3])
try:
    np.random.default_rng(0)
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "ForbiddenRandomness"), done.stderr


def test_answers_are_rerandomised() -> None:
    """One party's answer share is uniform for one and the same half, weights and input: the client cannot read W from it."""
    parties = TwoParties(SQUARE)
    words = np.concatenate([parties.shares(INPUTS["zeros"])[1].ravel() for _ in range(100)])
    counts = np.bincount(np.frombuffer(words.tobytes(), np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(LEVEL, 255)

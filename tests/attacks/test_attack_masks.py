"""Claim: no two encryptions share a mask, nor do a process and its fork.

Adversary: the server, which sees two ciphertexts. With one mask under both, the difference of their c0 is the
difference of the plaintexts, and the seeds show it.
Unprotected variant: a fork whose masks do not know which process made them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from adversary import CHANCE, Case, random_head, random_inputs, uniformity
from numpy.typing import NDArray

from secure_infer.ckks.coefficient import pack_input
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES

HEAD = random_head(16, 8, seed=14)
ROWS = random_inputs(HEAD.contract, 2, seed=15)


def difference(case: Case, first: bytes, second: bytes) -> NDArray[np.int64]:
    """Coefficients of c0 - c0' of two ciphertexts, centred."""
    degree, primes = case.plan.parameters.degree, case.plan.parameters.data_primes
    a, b = (unpack_residues(data[:-SEED_BYTES], degree, primes, "ciphertext") for data in (first, second))
    prime = np.uint64(case.plan.first_prime)
    return case.centred(case.ring.coefficients((a + (prime - b)) % prime))


def plaintext_difference(case: Case) -> NDArray[np.int64]:
    return pack_input(case.plan, ROWS[0])[0] - pack_input(case.plan, ROWS[1])[0]


def fork_and_encrypt(bypass: bool) -> None:
    """One mask is ready, the process forks, parent and child encrypt; both ciphertexts go to standard output."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    polynomials = [pack_input(case.plan, row)[0] for row in ROWS]
    case.key.prepare()
    parent = os.getpid()
    ours, theirs = os.pipe()
    if os.fork() == 0:
        if bypass:
            os.getpid = lambda: parent
        os.write(theirs, case.key.encrypt(polynomials[1]))
        os._exit(0)
    os.close(theirs)
    os.wait()
    with os.fdopen(ours, "rb") as pipe:
        sys.stdout.buffer.write(case.key.encrypt(polynomials[0]) + pipe.read())


def forked(bypass: bool) -> tuple[bytes, bytes]:
    """The two ciphertexts, from a process without threads: forking one that has them is another test's business."""
    script = f"import test_attack_masks; test_attack_masks.fork_and_encrypt({bypass})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, check=True, timeout=60
    )
    half = len(done.stdout) // 2
    return done.stdout[:half], done.stdout[half:]


def test_encryptions_share_neither_seed_nor_mask() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    polynomial = pack_input(case.plan, ROWS[0])[0]
    sent = []
    for i in range(400):
        if i % 3 == 0:
            case.key.prepare()
        sent.append(case.key.encrypt(polynomial))
    assert len({data[-SEED_BYTES:] for data in sent}) == len(sent)
    # One input, 200 pairs: were any mask used twice, that difference would be zero.
    differences = np.stack([difference(case, a, b) for a, b in zip(sent[0::2], sent[1::2], strict=True)])
    assert differences.any(axis=1).all()
    assert uniformity(differences, case.plan.first_prime, 256) > CHANCE


def test_two_keys_share_neither_seed_nor_public_half() -> None:
    keys = [Case.of(HEAD, Privacy.BOTH_PRIVATE).upload for _ in range(20)]
    assert len({key[-SEED_BYTES:] for key in keys}) == len({key[:-SEED_BYTES] for key in keys}) == len(keys)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_use_its_parents_mask() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    parent, child = forked(bypass=False)
    assert parent[-SEED_BYTES:] != child[-SEED_BYTES:]
    assert uniformity(difference(case, parent, child), case.plan.first_prime, 64) > CHANCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_that_did_would_reveal_the_difference_of_two_inputs() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    parent, child = forked(bypass=True)
    assert parent[-SEED_BYTES:] == child[-SEED_BYTES:]
    assert np.array_equal(difference(case, parent, child), plaintext_difference(case))

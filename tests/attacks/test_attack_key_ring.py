"""Claim: what a client keeps between processes gives a hostile server no further refusals, and repeats no randomness.

Adversary: the server, which may make clients start anew as often as it likes. A key that comes back after its answer was
refused is an oracle again, and so is a client that forgot how often it was refused.
Unprotected variant: a ring that is written when the client ends well, as a session in memory would be.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adversary import Case, random_head
from test_attack_reaction import HEAD, _truncated, hostile  # noqa: F401 (a fixture)

from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import AnswerRefused
from secure_infer_client import Client, KeyRing
from secure_infer_client.keyring import Entry
from secure_infer_client.keys import KEY_SEED_BYTES, SecretKey, new_seed
from secure_infer_client.providers import KeyFile

ROW = np.zeros((1, HEAD.features))

CALLER = """
import os, sys, numpy as np
from secure_infer.errors import AnswerRefused
from secure_infer_client import Client, KeyRing
from secure_infer_client.providers import KeyFile
address, ring, key, features = sys.argv[1:]
client = Client(address, model="m", key_ring=KeyRing(ring, provider=KeyFile(key)))
try:
    client.predict(np.zeros((1, int(features))))
except AnswerRefused as refusal:
    sys.stdout.write("stopped" if "this client stopped" in refusal.message else "refused")
    sys.stdout.flush()
os._exit(0)  # as a process that is killed: nothing is closed, nothing runs at its end
"""


@pytest.fixture
def provider(tmp_path: Path) -> KeyFile:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(new_seed()[:32])
    return KeyFile(path)


def test_processes_that_are_killed_do_not_forget_refusals(
    hostile: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    provider: KeyFile,
) -> None:
    servicer, address = hostile(_truncated)
    arguments = [sys.executable, "-c", CALLER, address, tmp_path / "ring", tmp_path / "key", str(HEAD.features)]
    said = [subprocess.run(arguments, capture_output=True, text=True, timeout=120).stdout for _ in range(3)]
    assert said == ["refused", "refused", "stopped"]
    # Two answers, each under a key that was never used again.
    assert list(servicer.calls.values()) == [1, 1]
    assert len(set(servicer.keys)) == 2


def test_one_client_after_another_is_refused_twice_in_all(
    hostile: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    provider: KeyFile,
) -> None:
    servicer, address = hostile(_truncated)
    for _ in range(6):
        ring = KeyRing(tmp_path / "ring", provider=provider)
        with Client(address, model="m", key_ring=ring) as client, pytest.raises(AnswerRefused):
            client.predict(ROW)
    assert sum(servicer.calls.values()) == 2


def test_a_ring_written_at_the_end_would_be_refused_for_ever(
    hostile: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    provider: KeyFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The unprotected variant: one key answers as often as there are processes."""
    servicer, address = hostile(_truncated)
    monkeypatch.setattr(Entry, "refuse", lambda self: None)
    for _ in range(4):
        ring = KeyRing(tmp_path / "ring", provider=provider)
        with Client(address, model="m", key_ring=ring) as client, pytest.raises(AnswerRefused):
            client.predict(ROW)
    assert list(servicer.calls.values()) == [4]


CASE = Case.of(random_head(16, 8, seed=14), Privacy.BOTH_PRIVATE)


def restored(seed: bytes) -> SecretKey:
    return SecretKey(CASE.plan.parameters, seed)


def test_a_seed_gives_the_same_secret_and_nothing_else_again() -> None:
    """A thousand processes with one seed: every encryption and every public half differ from all others."""
    seed = new_seed()
    keys = [restored(seed) for _ in range(40)]
    assert len({key.fingerprint() for key in keys}) == 1
    zeros = np.zeros(CASE.plan.parameters.degree, np.int64)
    sent = [key.encrypt(zeros) for key in keys for _ in range(2)]
    sent += [key.encrypt_batch(zeros) for key in keys]
    sent += [key.upload(CASE.plan).data for key in keys]
    assert len({data[-SEED_BYTES:] for data in sent}) == len(sent)
    assert len({data[:-SEED_BYTES] for data in sent}) == len(sent)
    assert not any(seed[at : at + 8] in data for data in sent for at in range(0, KEY_SEED_BYTES, 8))


def test_other_seeds_give_other_secrets() -> None:
    seed = new_seed()
    flipped = bytes([seed[0] ^ 1]) + seed[1:]
    found = [key.polynomial() for key in (restored(seed), restored(flipped), restored(new_seed()))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 0.25 < (found[one] == found[other]).mean() < 0.42  # a third, by chance
    assert all(abs(np.bincount(s + 1, minlength=3) / len(s) - 1 / 3).max() < 0.05 for s in found)


def test_a_key_that_this_seal_makes_otherwise_is_not_used(tmp_path: Path, provider: KeyFile, served: Any) -> None:
    """A seed under another version of SEAL might give another secret; answers would look like a hostile server's."""
    ring = KeyRing(tmp_path / "ring", provider=provider)
    row = np.zeros((1, served.head.features))
    with Client(served.address, model=served.model, key_ring=ring) as client:
        client.predict(row)
    with ring:
        entry = ring.entry("ckks", (served.address,), served.model)
        with entry.changing() as state:
            for name, seed in state.seeds.items():
                state.seeds[name] = type(seed)(new_seed(), seed.fingerprint, seed.created)
        entry.close()
    with Client(served.address, model=served.model, key_ring=ring) as client:
        client.predict(row)
        assert client.last_call.stats.key_bytes > 0
    with ring:
        assert ring.facts(ring.names()[0])["refusals"] == 0

"""Bytes in and out of SEAL: the fast reader, its fallback, and forks."""

import os

import numpy as np
import pytest

from secure_infer.ckks import seal, sealio


@pytest.fixture
def ring() -> seal.Ring:
    return seal.ring(seal.parameters(4096, (43, 43), 20))


@pytest.fixture
def sample(ring: seal.Ring) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([[rng.integers(0, p, 4096, np.uint64) for p in ring.parameters.data_primes] for _ in range(2)])


def test_residues_round_trip(ring: seal.Ring, sample: np.ndarray) -> None:
    for ntt in (True, False):
        assert np.array_equal(ring.residues(ring.load(sample, ntt=ntt)), sample)


def test_the_fallback_reads_the_same(ring: seal.Ring, sample: np.ndarray) -> None:
    ciphertext = ring.load(sample)
    assert np.array_equal(sealio._words_by_save(ciphertext, sample.size), sample.ravel())
    assert np.array_equal(sealio.words(ciphertext, sample.size), sample.ravel())


def test_a_wrong_layout_is_an_error_and_not_a_crash(ring: seal.Ring, sample: np.ndarray) -> None:
    reader = sealio._MemoryReader()
    reader._DATA = 40  # type: ignore[misc]
    ciphertext = ring.load(sample)
    try:
        assert not np.array_equal(reader(ciphertext, sample.size), sample.ravel())
    except OSError:
        pass


def test_a_forked_child_reads_its_own_memory(ring: seal.Ring, sample: np.ndarray) -> None:
    sealio.words(ring.load(sample), 4)  # the parent's reader is open
    child = os.fork()
    if child == 0:
        other = sample[::-1].copy()
        ok = np.array_equal(ring.residues(ring.load(other)), other)
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_temporary_file_where_memory_has_none(ring: seal.Ring, sample: np.ndarray) -> None:
    with sealio.MemoryFile(in_memory=False) as file:
        path = file.path
        file.write(b"longer first")
        file.write(b"abc")
        assert file.read() == b"abc"
        assert os.path.exists(path)  # noqa: PTH110
    assert not os.path.exists(path)  # noqa: PTH110


def test_seeded_streams_expand_their_second_half(ring: seal.Ring, sample: np.ndarray) -> None:
    one, same, other = (ring.residues(ring.expand(sample[0], seed)) for seed in (bytes(64), bytes(64), b"\1" * 64))
    assert np.array_equal(one, same)
    assert np.array_equal(one[0], sample[0])
    assert not np.array_equal(one[1], other[1])

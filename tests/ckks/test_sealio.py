"""Bytes in and out of SEAL: the fast reader, its fallback, and forks."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from secure_infer.ckks import memoryfile, seal, sealio


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
    reader = sealio._MemoryReader(sealio._checked_read)
    reader._DATA = 40  # type: ignore[misc]
    ciphertext = ring.load(sample)
    try:
        assert not np.array_equal(reader(ciphertext, sample.size), sample.ravel())
    except (OSError, ValueError, OverflowError):
        pass


def test_a_forked_child_reads_its_own_memory(ring: seal.Ring, sample: np.ndarray) -> None:
    sealio.words(ring.load(sample), 4)  # the parent's reader is open
    child = os.fork()
    if child == 0:
        other = sample[::-1].copy()
        ok = np.array_equal(ring.residues(ring.load(other)), other)
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_and_its_parent_load_apart(ring: seal.Ring, sample: np.ndarray) -> None:
    ring.load(sample)  # the parent's file is open
    turn, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(turn[0], 1)
        memoryfile.kept_file().write(b"child" * 1000)
        os.write(done[1], b"x")
        os._exit(0)
    stream = sealio.ciphertext(ring.data_level, sample)
    with memoryfile.file_for(len(stream)) as file:
        file.write(stream)
        os.write(turn[1], b"x")
        os.read(done[0], 1)
        loaded = sealapi.Ciphertext(ring.context)
        loaded.load(ring.context, file.path)
    assert np.array_equal(ring.residues(loaded), sample)
    assert os.waitpid(child, 0)[1] == 0
    for end in (*turn, *done):
        os.close(end)


def test_threads_load_apart(ring: seal.Ring, sample: np.ndarray) -> None:
    stream = sealio.ciphertext(ring.data_level, sample)
    with memoryfile.file_for(len(stream)) as file, ThreadPoolExecutor(1) as other:
        file.write(stream)
        other.submit(ring.load, sample[::-1]).result()
        loaded = sealapi.Ciphertext(ring.context)
        loaded.load(ring.context, file.path)
    assert np.array_equal(ring.residues(loaded), sample)


def test_threads_that_end_close_their_files(ring: seal.Ring, sample: np.ndarray) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = open_files()
    for _ in range(5):
        thread = threading.Thread(target=ring.load, args=(sample,))
        thread.start()
        thread.join()
    assert open_files() == before


@pytest.mark.parametrize("good", [True, False])
def test_nothing_stays_in_the_file_that_a_thread_keeps(ring: seal.Ring, sample: np.ndarray, good: bool) -> None:
    if good:
        ring.load(sample)
    else:
        with pytest.raises(RuntimeError):
            ring.load(np.full_like(sample, 2**63))
    assert not any(memoryfile.kept_file().map[:])


def test_larger_streams_than_a_thread_keeps_a_file_for(ring: seal.Ring, sample: np.ndarray) -> None:
    wide = seal.ring(seal.parameters(32768, (50, 50, 50), 50))
    large = np.ones((2, 3, 32768), np.uint64)
    assert large.nbytes > memoryfile.KeptFile.SIZE
    assert np.array_equal(wide.residues(wide.load(large)), large)


def test_a_temporary_file_where_memory_has_none(ring: seal.Ring, sample: np.ndarray) -> None:
    with memoryfile.MemoryFile(in_memory=False) as file:
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

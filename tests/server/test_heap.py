"""What was freed in the middle of a heap goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from secure_infer_server.heap import Heap

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

# Blocks below the size that malloc maps apart; every fourth stays, so that the others are free in between.
SCRIPT = """
from pathlib import Path
from secure_infer_server.heap import Heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4

blocks = [bytearray(60_000) for _ in range(1000)]
kept = blocks[::4]
del blocks
before = resident()
assert not Heap(60.0).tend()
assert Heap(0.0).tend()
print(before - resident())
"""

# How many heaps eight threads have that allocate at once, by glibc's own account.
THREADS = """
import ctypes, os, sys, tempfile, threading
from secure_infer_server import heap

if sys.argv[1] == "keep":
    heap.keep_small()
together = threading.Barrier(8)

def work():
    together.wait()
    kept = [bytes(600 + n) for n in range(10_000)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as told:
    out = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(told.read().count(b"<heap nr="))
"""


@glibc
@pytest.mark.parametrize(
    ("argument", "limit", "heaps"), [("keep", None, {2}), ("no", None, set(range(3, 10))), ("keep", "4", {4})]
)
def test_threads_share_two_heaps_or_as_many_as_the_environment_says(
    argument: str, limit: str | None, heaps: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if limit is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", limit)
    done = subprocess.run([sys.executable, "-c", THREADS, argument], capture_output=True, text=True, check=True)
    assert int(done.stdout) in heaps


# Whether a block of a megabyte is mapped by itself, after one of eight was freed.
MAPPED = """
import ctypes, sys
from secure_infer_server import heap

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks a b c d e f".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
if sys.argv[1] == "keep":
    heap.keep_small()
bytearray(8 << 20)
before = libc.mallinfo2().hblks
block = bytearray(1 << 20)
print(libc.mallinfo2().hblks - before)
"""


@glibc
@pytest.mark.parametrize(("argument", "limit", "mapped"), [("keep", None, 1), ("no", None, 0), ("keep", "16777216", 0)])
def test_large_blocks_are_kept_out_of_heaps(
    argument: str, limit: str | None, mapped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    if limit is not None:
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", limit)
    done = subprocess.run([sys.executable, "-c", MAPPED, argument], capture_output=True, text=True, check=True)
    assert int(done.stdout) == mapped


@glibc
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="without /proc")
def test_free_pages_between_blocks_that_stay_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 30_000  # of 45 MB


def test_it_is_done_now_and_then() -> None:
    heap = Heap(1e6)
    assert [heap.tend() for _ in range(3)] == [False] * 3

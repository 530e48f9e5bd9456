"""What was freed in the middle of a heap goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from secure_infer_server.heap import Heap

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="without /proc")
def test_free_pages_between_blocks_that_stay_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 30_000  # of 45 MB


def test_it_is_done_now_and_then() -> None:
    heap = Heap(1e6)
    assert [heap.tend() for _ in range(3)] == [False] * 3

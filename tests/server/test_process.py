"""How processes that serve end."""

from __future__ import annotations

import subprocess
import sys

SIGNALLED = """
import random, signal
from secure_infer_server import process

process.LOOK_SECONDS = 0.001
for _ in range(400):
    ending = process.Ending()
    ending.heed_signals()
    signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-6, 2e-4))
    ending.wait()
"""


def test_a_signal_at_any_moment_ends_the_wait() -> None:
    """Those too at which the main thread is about to wait: a handler that took the lock it holds would wait for itself."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr

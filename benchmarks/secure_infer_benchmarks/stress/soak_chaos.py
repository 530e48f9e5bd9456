"""What goes wrong during a soak: processes are killed or restarted, at moments and in an order that a seed draws."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from secure_infer.errors import ServerUnavailable
from secure_infer_benchmarks.stress.soak_servers import CKKS, DEALER, PARTIES, Fleet, Managed

PAUSES = (2.0, 8.0)  # seconds between two faults


class Chaos:
    """A thread. done: faults by name; stuck: processes that did not end in order; failed: those that did not come back."""

    def __init__(self, fleet: Fleet, seconds: float, seed: int, pauses: tuple[float, float] = PAUSES) -> None:
        self._fleet, self._seconds, self._pauses = fleet, seconds, pauses
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.stuck: list[str] = []
        self.failed: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        end, order = monotonic() + self._seconds, list[str]()
        while not self._ending.wait(self._random.uniform(*self._pauses)) and monotonic() < end:
            if not order:  # each of them once, then each of them again
                order = self._random.sample(sorted(self._faults()), len(self._faults()))
            name = order.pop()
            try:
                self.done[name] += self._faults()[name]()
            except ServerUnavailable as problem:
                self.failed.append(f"{name}: {problem.message}")

    def _faults(self) -> dict[str, Callable[[], bool]]:
        """By name; each says whether it was done."""
        server = self._fleet.managed[CKKS]
        found: dict[str, Callable[[], bool]] = {
            "kill a worker": lambda: self._kill_child(server, blinding=False),
            "kill the blinding process": lambda: self._kill_child(server, blinding=True),
            "restart the server": lambda: self._restart(server, signal.SIGTERM),
            "kill the server": lambda: self._restart(server, signal.SIGKILL),
        }
        if DEALER in self._fleet.managed:
            dealer = self._fleet.managed[DEALER]
            party = self._fleet.managed[self._random.choice(PARTIES)]
            found |= {
                "kill a party": lambda: self._restart(party, signal.SIGKILL),
                "restart a party": lambda: self._restart(party, signal.SIGTERM),
                "kill the dealer": lambda: self._restart(dealer, signal.SIGKILL),
            }
        return found

    def _kill_child(self, server: Managed, *, blinding: bool) -> bool:
        children = server.children()
        blinds = server.blinding
        chosen = [child for child in children if (child == blinds) == blinding]
        if not chosen:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._random.choice(chosen), signal.SIGKILL)
        return True

    def _restart(self, managed: Managed, how: signal.Signals) -> bool:
        if managed.end(how) is None:
            self.stuck.append(f"{managed.name} on {how.name}")
        sleep(self._random.uniform(0.0, 0.5))
        managed.start()
        return True

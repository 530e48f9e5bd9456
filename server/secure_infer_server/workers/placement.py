"""Which worker takes a job: the one that the client's keys belong to, unless waiting there has cost more than the keys.

A key's home is found by rendezvous hashing (Thaler and Ravishankar, 1998): of all live workers the one with the highest
hash of key and worker, so that a worker that goes moves nobody else's clients. Another worker would have to load the keys
first. It does once a client's jobs have waited at home, while the other one was free, as long as loading takes (renting
skis until they would have been paid for): at most twice the time of the best choice made in hindsight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

LOAD_RATE = 40e6  # bytes a second of uploaded key material that a worker loads, about
_CLIENTS = 4096


def home_order(key: bytes, workers: int) -> list[int]:
    """Workers by number, a key's home first."""
    return sorted(range(workers), key=lambda number: blake2b(key + number.to_bytes(4, "little")).digest(), reverse=True)


class Placement:
    """Chooses, and remembers how long clients have waited."""

    def __init__(self) -> None:
        self._waited: OrderedDict[bytes, float] = OrderedDict()

    def choose(self, key: bytes, size: int, pending: Mapping[int, float], holding: set[int], workers: int) -> int:
        """A worker's number. key: what a client's jobs share; size: bytes of its keys. pending: seconds of work that wait
        at each worker that may be chosen. holding: those that hold the keys."""
        order = [number for number in home_order(key, workers) if number in pending]
        if not size:
            return min(order, key=lambda number: pending[number])
        paid, load = self._waited.get(key, 0.0), size / LOAD_RATE
        holders = holding & pending.keys() or {order[0]}

        def cost(number: int) -> float:
            return pending[number] + (0.0 if number in holders else max(0.0, load - paid))

        chosen = min(order, key=cost)
        waits = pending[chosen] - min(pending.values()) if chosen in holders else -paid
        self._waited[key] = paid + waits
        self._waited.move_to_end(key)
        if len(self._waited) > _CLIENTS:
            self._waited.popitem(last=False)
        return chosen

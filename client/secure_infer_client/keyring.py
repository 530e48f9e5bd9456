"""A session's secret keys: one a ring, used by one thread at a time, destroyed all together."""

from __future__ import annotations

import os
from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor

from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import Plan
from secure_infer_client.keys import SecretKey


class KeyRing:
    """`by_ring` holds the keys; `uploaded` the (plan digest, key digest) of key material that was sent."""

    def __init__(self) -> None:
        self.by_ring: dict[Parameters, SecretKey] = {}
        self.uploaded: set[tuple[str, bytes]] = set()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="secure-infer-mask")
        self._preparing: Future[None] | None = None
        self._process = os.getpid()

    def key_for(self, plan: Plan) -> SecretKey:
        """The secret key of the plan's ring, made when there is none; plans of one ring share it."""
        self._settle()
        if plan.parameters not in self.by_ring:
            self.by_ring[plan.parameters] = SecretKey(plan.parameters)
        return self.by_ring[plan.parameters]

    def holds(self, plan: Plan, key: SecretKey) -> bool:
        """Whether the server was sent all that the plan asks for."""
        return not plan.key_bytes or (plan.digest, key.upload(plan).digest) in self.uploaded

    def prepare(self, key: SecretKey, count: int) -> None:
        """Make the masks of the next `count` encryptions on a thread, until the key is asked for again."""
        self._settle()
        self._preparing = self._ahead.submit(key.prepare, count)

    def keep(self, rings: Set[Parameters]) -> None:
        """Destroy the keys of all other rings."""
        self._settle()
        for parameters in self.by_ring.keys() - rings:
            self.by_ring.pop(parameters).destroy()

    def destroy(self) -> None:
        """Destroy every key."""
        self.keep(frozenset())
        self.uploaded.clear()

    def close(self) -> None:
        self.destroy()
        self._ahead.shutdown()

    def _settle(self) -> None:
        """Wait for the mask that is being made."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None and self._process == os.getpid():
            preparing.exception()  # waits; a mask that could not be made is made when it is needed, or fails there

"""A session's secret keys in memory: one a ring, used by one thread at a time, destroyed all together.

Where there is a key ring, its entry gives the seeds that keys are made of, and says which key material a server was sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import Plan
from secure_infer_client.keyring import Entry
from secure_infer_client.keys import SecretKey, Upload, new_seed
from secure_infer_client.ringstate import Seed, now


class HeldKeys:
    """`by_ring` holds the keys."""

    def __init__(self, entry: Entry) -> None:
        self.by_ring: dict[Parameters, SecretKey] = {}
        self._entry = entry
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="secure-infer-mask")
        self._preparing: Future[None] | None = None
        self._process = os.getpid()

    @property
    def uploaded(self) -> set[tuple[str, bytes]]:
        """(plan digest, key digest) of key material that was sent."""
        return {(plan, bytes.fromhex(digest)) for plan, digest in self._entry.state.uploaded.items()}

    def key_for(self, plan: Plan) -> SecretKey:
        """The secret key of the plan's ring, made when there is none; plans of one ring share it."""
        self._settle()
        if plan.parameters not in self.by_ring:
            self.by_ring[plan.parameters] = self._restored(plan.parameters) or self._made(plan.parameters)
        return self.by_ring[plan.parameters]

    def _restored(self, parameters: Parameters) -> SecretKey | None:
        """The key that the ring keeps, unless this SEAL makes another one of its seed."""
        seed = self._entry.state.seeds.get(_in_words(parameters))
        if seed is None:
            return None
        key = SecretKey(parameters, seed.value)
        if key.fingerprint() == seed.fingerprint:
            return key
        key.destroy()
        with self._entry.changing() as state:
            state.drop_keys()
        return None

    def _made(self, parameters: Parameters) -> SecretKey:
        if not self._entry.lasts:
            return SecretKey(parameters)
        seed = new_seed()
        key = SecretKey(parameters, seed)
        with self._entry.changing() as state:
            state.seeds[_in_words(parameters)] = Seed(seed, key.fingerprint(), now())
        return key

    def digest(self, plan: Plan, key: SecretKey) -> bytes:
        """SHA-256 of the key material that goes with a query; empty where the plan takes none.

        What a server was sent by an earlier process is not made again.
        """
        if not plan.key_bytes:
            return b""
        held = self._entry.state.uploaded.get(plan.digest)
        return key.upload(plan).digest if held is None else bytes.fromhex(held)

    def holds(self, plan: Plan) -> bool:
        """Whether the server was sent all that the plan asks for."""
        return not plan.key_bytes or plan.digest in self._entry.state.uploaded

    def sent(self, plan: Plan, upload: Upload) -> None:
        """The server has that key material now."""
        digest = upload.digest.hex()
        with self._entry.changing() as state:
            before = state.uploaded.get(plan.digest, digest)
            if before != digest:
                state.retired.append((plan.digest, before))
            state.uploaded[plan.digest] = digest

    def prepare(self, key: SecretKey, count: int) -> None:
        """Make the masks of the next `count` encryptions on a thread, until the key is asked for again."""
        self._settle()
        self._preparing = self._ahead.submit(key.prepare, count)

    def keep(self, plans: Sequence[Plan]) -> None:
        """Destroy the keys of all rings but those of these plans, and retire what was sent for any other plan."""
        self._settle()
        rings = {plan.parameters for plan in plans}
        for parameters in self.by_ring.keys() - rings:
            self.by_ring.pop(parameters).destroy()
        words, digests = set(map(_in_words, rings)), {plan.digest for plan in plans}
        with self._entry.changing() as state:
            state.seeds = {ring: seed for ring, seed in state.seeds.items() if ring in words}
            state.retired += [pair for pair in state.uploaded.items() if pair[0] not in digests]
            state.uploaded = {plan: key for plan, key in state.uploaded.items() if plan in digests}

    def destroy(self) -> None:
        """Destroy every key, in the ring first, and retire what was sent for it."""
        try:
            with self._entry.changing() as state:
                state.drop_keys()
        finally:
            self.forget()

    def forget(self) -> None:
        """Destroy every key in memory; what the ring keeps stays."""
        self._settle()
        for key in self.by_ring.values():
            key.destroy()
        self.by_ring.clear()

    def close(self) -> None:
        self.forget()
        self._ahead.shutdown()

    def _settle(self) -> None:
        """Wait for the mask that is being made."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None and self._process == os.getpid():
            preparing.exception()  # waits; a mask that could not be made is made when it is needed, or fails there


def _in_words(parameters: Parameters) -> str:
    """The ring's exact name: N, then all primes."""
    return f"{parameters.degree}:{','.join(map(str, parameters.primes))}"

"""A server's keys: uploads that are checked on the way in, bytes in a backend, keys ready for evaluation in memory.

vault = KeyVault(DiskBackend(path, KeyLimits()), load_client_keys, memory=1 << 30)
upload = vault.begin("hospital-a", "icd10-chapter", plan, digest, size)
upload.append(data)
upload.finish()
keys = vault.lookup("hospital-a", plan, digest)    # after a restart, too
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic

from secure_infer.ckks.plan import Plan
from secure_infer.errors import MalformedRequest, SecureInferError, ServerUnavailable
from secure_infer_server.keys.backend import Backend, beyond, gap
from secure_infer_server.keys.names import HeldKey, KeyName
from secure_infer_server.keys.ready import Ready, ReadyKeys
from secure_infer_server.keys.screening import Screen, check_material
from secure_infer_server.keystore import ClientKeys

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Bytes handed to the backend at once, however small the chunks are that come."""
CONFIRM_SECONDS = 60.0
TEND_SECONDS = 60.0


Load = Callable[[Plan, bytes], tuple[Ready, int]]
"""Checks uploaded bytes, and makes of them what evaluation takes; with the bytes of memory that it holds. Raises
MalformedRequest or SecretKeyReceived, and then nothing was loaded into SEAL."""
Prove = Callable[[KeyName, bytes], None]
"""Raises when bytes that were loaded must not become a key for another reason."""


def load_client_keys(plan: Plan, data: bytes) -> tuple[ClientKeys, int]:
    """A `Load` for evaluation in this process."""
    keys = ClientKeys.load(plan, check_material(plan, data))
    return keys, keys.size


class KeyVault(Generic[Ready]):
    """Keys of every identity. An identity is a string that the caller authenticated; "" is one, too: nobody in particular.

    memory: bytes of keys that are ready. confirm: seconds after which such a key is looked up again, since another process
    may have deleted it. prove: what an upload has to pass besides. gone: told of keys that were found to be held no more, so
    that what was made for them goes, too. All methods but `ready` may wait for a disk or a network.
    """

    def __init__(
        self,
        backend: Backend,
        load: Load[Ready],
        memory: int,
        confirm: float = CONFIRM_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        prove: Prove = lambda name, data: None,
        gone: Callable[[KeyName], None] = lambda name: None,
    ) -> None:
        self.backend, self._load, self._prove, self._gone = backend, load, prove, gone
        self._ready = ReadyKeys[Ready](memory)
        self._confirm, self._clock = confirm, clock
        self._locks: dict[KeyName, tuple[threading.Lock, list[int]]] = {}
        self._guard = threading.Lock()
        self._ending = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="key-vault", daemon=True)

    def start(self) -> None:
        """Drop what expires, from now on."""
        self._tender.start()

    def close(self) -> None:
        self._ending.set()
        if self._tender.is_alive():
            self._tender.join()
        self.backend.close()

    def _tend(self) -> None:
        while not self._ending.wait(TEND_SECONDS):
            try:
                self.backend.expire()
            except SecureInferError as error:
                log.warning("key store: nothing expired: %s", error.reason)
            except Exception:
                log.exception("key store: nothing expired")

    # Uploads.

    def begin(self, owner: str, model: str, plan: Plan, digest: bytes, size: int, offset: int = 0) -> Upload[Ready]:
        """Start an upload, or go on with one, whose first chunk belongs at `offset`.

        digest: SHA-256 of all bytes. Raises MalformedRequest, also for an offset beyond the bytes held; ResourceExhausted.
        """
        if size != plan.key_bytes or not size:
            raise MalformedRequest(f"public key: expected {plan.key_bytes} bytes for {plan.parameters}, got {size}")
        name, screen = KeyName(owner, bytes.fromhex(plan.digest), digest), Screen(plan)
        held = self.backend.begin(name, model, size)
        if held not in screen.ends:  # not stored by this version
            self.backend.discard(name)
            held = self.backend.begin(name, model, size)
        if offset > held:
            raise gap(held, offset)
        return Upload(self, name, plan, screen, held, offset)

    def progress(self, owner: str, plan_digest: bytes, digest: bytes) -> tuple[int, bool]:
        """Bytes held of that key or of its upload, and whether it is whole."""
        return self.backend.progress(KeyName(owner, plan_digest, digest))

    def commit(self, name: KeyName, plan: Plan) -> Ready | None:
        """Make an upload a key; what evaluation takes, or None when it was one already."""
        found: list[tuple[Ready, int]] = []

        def check(data: bytes) -> None:
            keys, size = self._load(plan, data)
            self._ready.require(size)
            self._prove(name, data)
            found.append((keys, size))

        with self._alone(name):
            self.backend.commit(name, check)
            if not found:
                return None
            self._ready.put(name, *found[0], self._clock())
        return found[0][0]

    # Keys.

    @property
    def in_memory(self) -> tuple[int, int]:
        """How many keys are ready for evaluation, and their bytes."""
        return len(self._ready), self._ready.size

    def ready(self, owner: str, plan: Plan, digest: bytes) -> Ready | None:
        """The key, when it is in memory and known to be held; waits for nothing. None: ask `lookup`."""
        found = self._ready.get(KeyName(owner, bytes.fromhex(plan.digest), digest))
        return found[0] if found is not None and self._clock() - found[1] < self._confirm else None

    def lookup(self, owner: str, plan: Plan, digest: bytes) -> Ready | None:
        """The key for evaluation; None when it is not held, which the client mends by an upload.

        Loads on first use. While the backend is away, keys in memory stay in use; others raise ServerUnavailable.
        """
        keys = self.ready(owner, plan, digest)
        if keys is not None:
            return keys
        name = KeyName(owner, bytes.fromhex(plan.digest), digest)
        with self._alone(name):  # many queries of one client find the key missing at once: one of them loads
            found = self._ready.get(name)
            return self._loaded(name, plan) if found is None else self._confirmed(name, *found)

    def _confirmed(self, name: KeyName, keys: Ready, confirmed: float) -> Ready | None:
        if self._clock() - confirmed < self._confirm:
            return keys
        with suppress(ServerUnavailable):  # the backend has told
            if not self.backend.touch(name):
                self._drop(name)
                return None
        self._ready.confirm(name, self._clock())
        return keys

    def _loaded(self, name: KeyName, plan: Plan) -> Ready | None:
        data = self.backend.get(name)
        if data is None:
            return None
        try:
            keys, size = self._load(plan, data)
            self._ready.put(name, keys, size, self._clock())
        except SecureInferError as error:
            log.warning("key store: a key was dropped, it cannot be used: %s", error.reason)
            self.backend.delete(name)
            return None
        return keys

    @contextmanager
    def _alone(self, name: KeyName) -> Iterator[None]:
        with self._guard:
            lock, waiting = self._locks.setdefault(name, (threading.Lock(), [0]))
            waiting[0] += 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                waiting[0] -= 1
                if not waiting[0]:
                    del self._locks[name]

    def held(self, owner: str | None) -> list[HeldKey]:
        """An identity's keys, or everybody's; least recently used first."""
        return self.backend.held(owner)

    def delete(self, owner: str, keys: Iterable[tuple[bytes, bytes]] | None = None) -> int:
        """Drop an identity's keys and uploads, by plan digest and key digest; None: all. Returns how many there were.

        Other processes that have such a key ready may use it for up to `confirm` seconds more.
        """
        if keys is None:
            names = {key.name for key in self.backend.held(owner)} | set(self.backend.pending(owner))
        else:
            names = {KeyName(owner, plan, digest) for plan, digest in keys}
        deleted = 0
        for name in names:
            with self._alone(name):  # whoever loads it is done with that, and then it is dropped
                deleted += self.backend.delete(name)
                self._drop(name)
        return deleted

    def _drop(self, name: KeyName) -> None:
        self._ready.drop(name)
        self._gone(name)


class Upload(Generic[Ready]):
    """One call's part of an upload. `held`: bytes that need not be sent. Not thread-safe; any number of calls may upload the
    same key at once. Nothing is stored of a polynomial that is not whole, or looks like a secret's."""

    def __init__(
        self, vault: KeyVault[Ready], name: KeyName, plan: Plan, screen: Screen, held: int, offset: int
    ) -> None:
        self.name, self.held = name, held
        self._vault, self._plan, self._screen = vault, plan, screen
        self._at = offset  # where the next chunk belongs
        self._kept = bytearray()  # what came from `held` on

    def append(self, chunk: bytes) -> None:
        """The next bytes; those held already are skipped. Raises MalformedRequest or SecretKeyReceived."""
        if self._at + len(chunk) > self._screen.ends[-1]:
            raise beyond(self._screen.ends[-1])
        have = self.held + len(self._kept)
        self._kept += chunk[max(0, have - self._at) :]
        self._at += len(chunk)
        if len(self._kept) >= PIECE:
            self.hold()

    def hold(self) -> None:
        """Put what came so far where it stays when the call breaks."""
        data = bytes(self._kept)
        try:
            whole = self._screen.passed(self.held, data)
        except SecureInferError:
            self._vault.backend.discard(self.name)
            self._kept.clear()
            raise
        if whole:
            held = self._vault.backend.append(self.name, self.held, data[:whole])
            del self._kept[: held - self.held]  # more, where another call uploads the same key
            self.held = held

    def finish(self) -> Ready | None:
        """Check the whole and make it a key. None when it was one already. Again: nothing happens.

        Raises MalformedRequest when bytes are missing (it goes on from there) or wrong (it starts anew), SecretKeyReceived.
        """
        self.hold()
        return self._vault.commit(self.name, self._plan)

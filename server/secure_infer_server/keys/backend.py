"""What holds keys' bytes: one contract for memory, disk and Redis. Tests hold all three to one model.

An upload has four steps: `begin` says how many bytes are held already, `append` adds, `commit` checks the whole and makes
it a key at once, or drops it. Before `commit` nothing of it is visible as a key; after it returned, the key outlives the
process (in memory: does not). All methods are safe over threads, and on disk and Redis over processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

from secure_infer.errors import MalformedRequest
from secure_infer_server.keys.names import HeldKey, KeyName, Usage

Check = Callable[[bytes], None]
"""Raises when bytes of the right length must not become a key: malformed, or a secret key sent by mistake."""


FULL, BUSY, AWAY = "full", "busy", "away"
"""What may be wrong with a disk or a network."""


class Backend(Protocol):
    """Keys by name, within `KeyLimits`. Expired keys and stale uploads are as if they were gone."""

    @property
    def failures(self) -> Mapping[str, int]:
        """How often what holds the bytes failed, by reason: its disk or memory is full, it is busy or away."""

    def begin(self, name: KeyName, model: str, size: int) -> int:
        """Start an upload of `size` bytes, or go on with it. Returns the bytes held: `size` when nothing is missing.

        An upload of that name with another size is dropped. Raises ResourceExhausted.
        """

    def progress(self, name: KeyName) -> tuple[int, bool]:
        """Bytes held of a key or of its upload, and whether it is a key. Starts nothing."""

    def append(self, name: KeyName, offset: int, data: bytes) -> int:
        """Add what `data`, which belongs at `offset`, has beyond the bytes held; returns the bytes then held.

        Raises MalformedRequest for a gap, for bytes beyond the announced size, and for an upload that is not under way.
        """

    def commit(self, name: KeyName, check: Check) -> None:
        """Make the upload a key: its SHA-256 is its name's digest and `check` lets it pass. Again: nothing happens.

        Raises MalformedRequest when bytes are missing (the upload goes on) or wrong (it is dropped), and what `check` raises
        (it is dropped). Drops older keys to make room.
        """

    def discard(self, name: KeyName) -> None:
        """Drop the upload, if there is one."""

    def get(self, name: KeyName) -> bytes | None:
        """A key's bytes, held to its SHA-256 once more, and marked as used; None when it is not held (any more)."""

    def touch(self, name: KeyName) -> bool:
        """Mark a key as used; false when it is not held."""

    def delete(self, name: KeyName) -> bool:
        """Drop a key and its upload; whether there was either."""

    def held(self, owner: str | None) -> list[HeldKey]:
        """An identity's keys, or everybody's; least recently used first."""

    def pending(self, owner: str) -> list[KeyName]:
        """What an identity is uploading."""

    def expire(self) -> int:
        """Drop what is past its time, and remains of earlier processes; how many keys that were."""

    def usage(self, owner: str | None = None) -> Usage:
        """Of one identity, or of all."""

    def close(self) -> None: ...


def verify(name: KeyName, size: int, data: bytes, check: Check) -> None:
    """Raise unless `data` may become the key of that name."""
    if len(data) != size:
        raise MalformedRequest(f"public key: {size} bytes announced, got {len(data)}")
    found = hashlib.sha256(data).digest()
    if found != name.digest:
        raise MalformedRequest(
            f"public key: announced SHA-256 {name.digest.hex()[:12]}…, its bytes have {found.hex()[:12]}…"
        )
    check(data)


def missing(size: int, held: int) -> MalformedRequest:
    """The error of a commit too early."""
    return MalformedRequest(
        f"public key: {size} bytes announced, got {held}; the upload may go on from there", held=held
    )


def beyond(size: int) -> MalformedRequest:
    return MalformedRequest(f"public key: {size} bytes announced, got more than that")


def gap(held: int, offset: int) -> MalformedRequest:
    return MalformedRequest(f"public key: {held} bytes are held, got some for offset {offset}", held=held)


def lost() -> MalformedRequest:
    """The error of an upload that is not, or no longer, under way."""
    return MalformedRequest(
        "public key: no such upload is under way (it may have idled too long, or its owner deleted it); send the key from "
        "its start",
        held=0,
        again="shortly",
    )

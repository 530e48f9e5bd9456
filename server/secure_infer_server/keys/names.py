"""What a key is called, and what is known about it without its bytes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

from secure_infer.errors import MalformedRequest
from secure_infer_server.mpc.roles import ANONYMOUS

DIGEST_BYTES = 32
MAX_OWNER = 1024


@dataclass(frozen=True)
class KeyName:
    """One identity's key for one plan.

    owner: the authenticated identity. plan, digest: SHA-256 of the plan and of the key's bytes, 32 bytes each. Two
    identities with equal bytes have two keys: neither learns of the other's. Raises MalformedRequest.
    """

    owner: str
    plan: bytes
    digest: bytes

    def __post_init__(self) -> None:
        for what, value in (("plan digest", self.plan), ("key digest", self.digest)):
            if len(value) != DIGEST_BYTES:
                raise MalformedRequest(f"{what}: expected {DIGEST_BYTES} bytes, got {len(value)}")
        if len(self.owner.encode()) > MAX_OWNER:
            raise MalformedRequest(f"identity: expected at most {MAX_OWNER} bytes, got {len(self.owner.encode())}")

    @cached_property
    def id(self) -> bytes:
        """32 bytes that tell names apart; the owner's length goes first, so that no two names are read alike."""
        owner = self.owner.encode()
        return hashlib.sha256(struct.pack("<I", len(owner)) + owner + self.plan + self.digest).digest()


def owner_of(caller: str) -> str:
    """The owner of what a caller uploads: callers that nothing tells apart are nobody in particular, together."""
    return "" if caller == ANONYMOUS else caller


@dataclass(frozen=True)
class HeldKey:
    """A whole key, checked. size: bytes. created, used: seconds since 1970. place: where its backend has the bytes."""

    name: KeyName
    model: str
    size: int
    created: float
    used: float
    place: str = ""


@dataclass(frozen=True)
class PendingKey:
    """An upload under way. size: bytes announced. held: bytes so far. touched: last chunk, in seconds since 1970."""

    name: KeyName
    model: str
    size: int
    held: int
    touched: float
    place: str = ""


@dataclass(frozen=True)
class Usage:
    """Keys and their bytes; uploads under way and the bytes they announced."""

    keys: int = 0
    bytes: int = 0
    uploads: int = 0
    upload_bytes: int = 0

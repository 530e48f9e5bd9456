"""How much is kept, for whom and for how long; and what has to go when something new comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from secure_infer.errors import ResourceExhausted, SettingsError
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey

IDLE_SECONDS = 30.0
"""An upload with no chunk for so long gives way to another."""


@dataclass(frozen=True)
class KeyLimits:
    """What a key store may take. Raises SettingsError.

    capacity: bytes of keys altogether. owner_bytes, owner_keys: of one identity, so that no identity can push out more of
    the others' than that (and the rest of one key). expiry: seconds a key is kept after its last use. upload_bytes,
    owner_upload_bytes: of uploads under way, by the sizes they announced. upload_seconds: after an upload's last chunk.
    """

    capacity: int = 4 << 30
    owner_bytes: int = 1 << 30
    owner_keys: int = 256
    expiry: float = 30 * 86400.0
    upload_bytes: int = 512 << 20
    owner_upload_bytes: int = 128 << 20
    upload_seconds: float = 900.0

    def __post_init__(self) -> None:
        for what, value in vars(self).items():
            if not value > 0:
                raise SettingsError(f"key store: {what} has to be positive, got {value}")
        for share, whole in (("owner_bytes", "capacity"), ("owner_upload_bytes", "upload_bytes")):
            if getattr(self, share) > getattr(self, whole):
                raise SettingsError(
                    f"key store: {share} is at most {whole} ({getattr(self, whole)}), got {getattr(self, share)}"
                )


def check_size(limits: KeyLimits, size: int) -> None:
    """Raise ResourceExhausted for a key that would not fit into an empty store."""
    most = min(limits.owner_bytes, limits.owner_upload_bytes)
    if size > most:
        raise ResourceExhausted(f"public key: {size} bytes exceed the {most} that one identity may keep here")


def keys_to_drop(
    limits: KeyLimits, size: int, own: Sequence[HeldKey], total: int, oldest: Callable[[], Iterable[HeldKey]]
) -> list[HeldKey]:
    """The keys that make room for one of `size` bytes.

    own: the owner's keys, least recently used first. total: bytes of all keys. oldest: all keys in the same order, asked
    for only when the store is full. The owner's own go first, for its own quota:

    >>> a, b = (KeyName(owner, bytes(32), bytes(32)) for owner in "ab")
    >>> own, other = HeldKey(a, "m", 6, 0, used=2), HeldKey(b, "m", 4, 0, used=1)
    >>> limits = KeyLimits(capacity=12, owner_bytes=8, upload_bytes=8, owner_upload_bytes=8)
    >>> [key.name.owner for key in keys_to_drop(limits, 5, [own], 10, lambda: [other, own])]
    ['a']
    """
    kept, count, dropped = sum(key.size for key in own), len(own), []
    for key in own:
        if kept + size <= limits.owner_bytes and count < limits.owner_keys:
            break
        dropped.append(key)
        kept, count, total = kept - key.size, count - 1, total - key.size
    if total + size > limits.capacity:
        gone = {key.name for key in dropped}
        for key in oldest():
            if total + size <= limits.capacity:
                break
            if key.name not in gone:
                dropped.append(key)
                total -= key.size
    return dropped


def uploads_to_drop(
    limits: KeyLimits, name: KeyName, size: int, pending: Sequence[PendingKey], now: float
) -> list[PendingKey]:
    """The uploads that make room for one of `size` bytes: idle ones alone, the owner's first.

    pending: all uploads but that of `name`, stalest first. Raises ResourceExhausted when those at work leave no room.
    """
    own = [upload for upload in pending if upload.name.owner == name.owner]
    most_own, most = limits.owner_upload_bytes - size, limits.upload_bytes - size
    taken_own, taken, count = sum(u.size for u in own), sum(u.size for u in pending), len(own)
    idle = [upload for upload in pending if upload.touched <= now - IDLE_SECONDS]
    dropped: list[PendingKey] = []
    for upload in idle:
        if upload.name.owner == name.owner and (taken_own > most_own or count >= limits.owner_keys):
            dropped.append(upload)
            taken_own, taken, count = taken_own - upload.size, taken - upload.size, count - 1
    for upload in idle:
        if taken > most and upload not in dropped:
            dropped.append(upload)
            taken -= upload.size
    if taken_own > most_own or taken > most or count >= limits.owner_keys:
        raise ResourceExhausted(
            f"uploads of public keys under way take {taken} of {limits.upload_bytes} bytes, this identity's {taken_own} "
            f"of {limits.owner_upload_bytes}; ask again shortly",
            again="shortly",
        )
    return dropped

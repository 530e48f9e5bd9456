"""What a key ring holds, as data: an entry for each model at its targets. Seeds are opaque here."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import time
from typing import Any

from secure_infer.errors import CannotUnlock


@dataclass(frozen=True)
class Name:
    """What an entry is for. targets: as they were given to the client."""

    scheme: str
    targets: tuple[str, ...]
    model: str

    def __str__(self) -> str:
        return f"{self.model} at {' and '.join(self.targets)}"


@dataclass(frozen=True)
class Seed:
    """A secret key's. fingerprint: of the key that it gave. created: seconds since 1970."""

    value: bytes
    fingerprint: bytes
    created: int


@dataclass
class State:
    """What is kept of one model at its targets; all lengths of keys are the server's business.

    seeds: by ring of the keys, in words. uploaded: plan digest to digest of the key material that was sent (hex). retired:
    such pairs that no key here belongs to any more, for the server to delete. refusals: answers that failed their check.
    retries, records: of two parties, counts that their limit goes by. pinned: what described the model, as it came, one from
    each target; privacy: the level it was asked for.
    """

    seeds: dict[str, Seed] = field(default_factory=dict)
    uploaded: dict[str, str] = field(default_factory=dict)
    retired: list[tuple[str, str]] = field(default_factory=list)
    refusals: int = 0
    retries: int = 0
    records: int = 0
    pinned: list[bytes] = field(default_factory=list)
    privacy: str = ""

    def drop_keys(self) -> None:
        """Forget the seeds; what was sent for them is the server's to delete."""
        self.retired += self.uploaded.items()
        self.uploaded.clear()
        self.seeds.clear()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "seeds": {ring: [_text(s.value), _text(s.fingerprint), s.created] for ring, s in self.seeds.items()},
            "pinned": [_text(message) for message in self.pinned],
        }

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> State:
        seeds = {ring: Seed(_bytes(a), _bytes(b), created) for ring, (a, b, created) in held["seeds"].items()}
        pinned = [_bytes(message) for message in held["pinned"]]
        return cls(**held | {"seeds": seeds, "pinned": pinned, "retired": [tuple(pair) for pair in held["retired"]]})


def packed(states: dict[Name, State]) -> bytes:
    """All entries as a ring's content."""
    entries = [asdict(name) | {"state": state.to_json()} for name, state in states.items()]
    return json.dumps({"version": 1, "entries": entries}).encode()


def parsed(path: Path, content: bytes | None) -> dict[Name, State]:
    """The inverse; raises CannotUnlock for another version's."""
    if content is None:
        return {}
    held = json.loads(content)
    if held["version"] != 1:
        raise CannotUnlock(f"key ring {path}: version {held['version']}, this software reads 1; update it")
    return {Name(e["scheme"], tuple(e["targets"]), e["model"]): State.from_json(e["state"]) for e in held["entries"]}


def now() -> int:
    """Seconds since 1970."""
    return int(time())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)

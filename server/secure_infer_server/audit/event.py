"""What an entry may say: an allow-list by type. Digests have 32 bytes, counts are counts, names are short; nothing else fits.

So no entry can hold a text, an embedding, a ciphertext, a key or a logit: there is no field that takes text of any length,
a float or bytes that are no digest. What a client chose itself, its request id, is kept as a hash.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from secure_infer.errors import InternalFault

_NAME = re.compile(r"[A-Za-z0-9._/-]{0,128}")
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOST = 1 << 53  # whole numbers that every reader of JSON reads exactly
_WHO = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One request, when it is over.

    who: the authenticated identity. method: of the RPC. outcome: "ok" or the error's reason. model: the name of a model that is
    served, never one that a client made up; model_digest, plan_digest, key_digest: 32 bytes, or empty where there is none.
    records: as charged. bytes_in, bytes_out: of ciphertexts or keys. request_id: as the client sent it; its SHA-256 is kept,
    so ids should be random. stored: answered from what was answered before. second_factor: given and right.
    Raises InternalFault, which names the field and not its value.
    """

    who: str
    method: str
    outcome: str
    model: str = ""
    model_digest: bytes = b""
    plan_digest: bytes = b""
    key_digest: bytes = b""
    records: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    request_id: bytes = b""
    stored: bool = False
    second_factor: bool = False

    def __post_init__(self) -> None:
        if type(self.who) is not str or not 0 < len(self.who) <= _WHO or not self.who.isprintable():
            raise _unfit("who", f"1 to {_WHO} printable characters")
        if type(self.method) is not str or not _NAME.fullmatch(self.method) or not self.method:
            raise _unfit("method", "a name")
        if type(self.model) is not str or not _NAME.fullmatch(self.model):
            raise _unfit("model", "the name of a model that is served")
        if type(self.outcome) is not str or not _REASON.fullmatch(self.outcome):
            raise _unfit("outcome", "ok or the reason of an error")
        for name in ("model_digest", "plan_digest", "key_digest"):
            if type(value := getattr(self, name)) is not bytes or len(value) not in (0, 32):
                raise _unfit(name, "32 bytes or none")
        for name in ("records", "bytes_in", "bytes_out"):
            if type(value := getattr(self, name)) is not int or not 0 <= value < _MOST:
                raise _unfit(name, "a count")
        if type(self.request_id) is not bytes:
            raise _unfit("request_id", "bytes")
        if type(self.stored) is not bool or type(self.second_factor) is not bool:
            raise _unfit("stored, second_factor", "true or false")

    def fields(self) -> dict[str, Any]:
        """As the log holds them; what is empty is left out."""
        found: dict[str, Any] = {"who": self.who, "method": self.method, "outcome": self.outcome}
        if self.model:
            found["model"] = self.model
        for name in ("model_digest", "plan_digest", "key_digest"):
            if value := getattr(self, name):
                found[name] = value.hex()
        for name in ("records", "bytes_in", "bytes_out", "stored", "second_factor"):
            if value := getattr(self, name):
                found[name] = value
        if self.request_id:
            found["request"] = hashlib.sha256(self.request_id).hexdigest()
        return found


FIELDS = (
    *("who", "method", "outcome", "model", "model_digest", "plan_digest", "key_digest", "records"),
    *("bytes_in", "bytes_out", "stored", "second_factor", "request"),
)
"""Those that `fields` may give."""


def _unfit(field: str, expected: str) -> InternalFault:
    return InternalFault(f"audit event, {field}: expected {expected}")

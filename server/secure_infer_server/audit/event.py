"""What an entry may say: an allow-list by type. Digests have 32 bytes, counts are counts, names are short; nothing else fits.

So no entry can hold a text, an embedding, a ciphertext, a key or a logit: there is no field that takes text of any length,
a float or bytes that are no digest. What a client chose itself, its request id, is kept as a hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

from secure_infer.errors import InternalFault

_NAME = re.compile(r"[A-Za-z0-9._/-]{0,128}")
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOST = 1 << 53  # whole numbers that every reader of JSON reads exactly
_WHO = 256

FIELDS = (
    *("who", "method", "outcome", "model", "model_digest", "plan_digest", "key_digest", "records"),
    *("bytes_in", "bytes_out", "stored", "second_factor", "request", "subject"),
)
"""Those that an entry may have."""


class Event:
    """One request, when it is over: checked, and written as the log will hold it. members: JSON without the braces.

    who: the authenticated identity. method: of the RPC. outcome: "ok" or the error's reason. model: the name of a model that
    is served, never one that a client made up; model_digest, plan_digest, key_digest: 32 bytes, or empty where there is none.
    records: as charged, or debited by an administrator. bytes_in, bytes_out: of ciphertexts or keys. request_id: as the
    client sent it; its SHA-256 is kept, so ids should be random. stored: answered from what was answered before.
    second_factor: given and right. subject: the identity whose keys or budgets an administrative call is about, as the
    administrator wrote it; its SHA-256 is kept. What is empty is left out. Raises InternalFault, which names the field and
    not its value.
    """

    __slots__ = ("members",)

    def __init__(
        self,
        *,
        who: str,
        method: str,
        outcome: str,
        model: str = "",
        model_digest: bytes = b"",
        plan_digest: bytes = b"",
        key_digest: bytes = b"",
        records: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        request_id: bytes = b"",
        stored: bool = False,
        second_factor: bool = False,
        subject: str = "",
    ) -> None:
        if {type(who), type(method), type(outcome), type(model), type(subject)} != {str}:
            raise _unfit("who, method, outcome, model, subject", "text")
        if {type(model_digest), type(plan_digest), type(key_digest), type(request_id)} != {bytes}:
            raise _unfit("model_digest, plan_digest, key_digest, request_id", "bytes")
        if {type(records), type(bytes_in), type(bytes_out)} != {int}:
            raise _unfit("records, bytes_in, bytes_out", "counts")
        if type(stored) is not bool or type(second_factor) is not bool:
            raise _unfit("stored, second_factor", "true or false")
        members = _subject(who, method, outcome, model, model_digest, plan_digest, key_digest)
        members += _counts(records, bytes_in, bytes_out)
        if stored:
            members += ',"stored":true'
        if second_factor:
            members += ',"second_factor":true'
        if request_id:
            members += f',"request":"{hashlib.sha256(request_id).hexdigest()}"'
        if subject:
            members += f',"subject":"{hashlib.sha256(subject.encode()).hexdigest()}"'
        self.members = members

    def fields(self) -> dict[str, Any]:
        """The members, read back."""
        return dict(json.loads(f"{{{self.members}}}"))


@lru_cache(maxsize=1024)
def _subject(
    who: str, method: str, outcome: str, model: str, model_digest: bytes, plan_digest: bytes, key_digest: bytes
) -> str:
    """What the calls of a caller with one key have in common."""
    if not 0 < len(who) <= _WHO or not who.isprintable():
        raise _unfit("who", f"1 to {_WHO} printable characters")
    if not _NAME.fullmatch(method) or not method:
        raise _unfit("method", "a name")
    if not _NAME.fullmatch(model):
        raise _unfit("model", "the name of a model that is served")
    if not _REASON.fullmatch(outcome):
        raise _unfit("outcome", "ok or the reason of an error")
    found = {"who": who, "method": method, "outcome": outcome}
    if model:
        found["model"] = model
    for name, digest in (("model_digest", model_digest), ("plan_digest", plan_digest), ("key_digest", key_digest)):
        if len(digest) not in (0, 32):
            raise _unfit(name, "32 bytes or none")
        if digest:
            found[name] = digest.hex()
    return json.dumps(found, separators=(",", ":"))[1:-1]


@lru_cache(maxsize=1024)
def _counts(records: int, bytes_in: int, bytes_out: int) -> str:
    members = ""
    for name, count in (("records", records), ("bytes_in", bytes_in), ("bytes_out", bytes_out)):
        if not 0 <= count < _MOST:
            raise _unfit(name, "a count")
        if count:
            members += f',"{name}":{count}'
    return members


def _unfit(field: str, expected: str) -> InternalFault:
    return InternalFault(f"audit event, {field}: expected {expected}")

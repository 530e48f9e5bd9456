"""Entries as lines, each bound to all before it.

    {"sequence":7,"time":"...","kind":"call",...,"previous":"<hash of entry 6>","hash":"<SHA-256 of the line up to here>"}

The hash is taken over the bytes of the line as they are written, without its own member, so that nothing has to be written
in one agreed form to be checked. A changed entry no longer fits its hash, or its hash no longer fits the next entry.

A checkpoint is an entry whose signature covers log, sequence and the hash before it, and so all entries up to there.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

START = "0" * 64
"""What stands before the first entry."""

CALL, CHECKPOINT, OPENED, CLOSED, RECOVERED, SEGMENT = "call", "checkpoint", "opened", "closed", "recovered", "segment"

Fields = dict[str, Any] | str
"""Members of an entry; as text, JSON without the braces and with nothing beyond ASCII."""

_DOMAIN = b"secure-infer audit entry\n"
_LINE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that was read: `hash` fits its bytes where `whole`."""

    sequence: int
    kind: str
    previous: str
    hash: str
    whole: bool
    fields: dict[str, Any] = field(repr=False)


@dataclass
class Chain:
    """Where a log stands: entries so far, and the hash of the last."""

    sequence: int = 0
    hash: str = START

    def line(self, kind: str, seconds: float, fields: Fields) -> bytes:
        """The next entry's line. seconds: since 1970."""
        when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[: -len("+00:00")]
        members = fields if isinstance(fields, str) else json.dumps(fields, separators=(",", ":"))[1:-1]
        said = f"{members}," if members else ""
        body = (
            f'{{"sequence":{self.sequence + 1},"time":"{when}Z","kind":"{kind}",{said}"previous":"{self.hash}"'
        ).encode("ascii")
        self.sequence, self.hash = self.sequence + 1, _hash(body)
        return b'%b,"hash":"%b"}\n' % (body, self.hash.encode("ascii"))


def read(line: bytes) -> Entry | None:
    """The entry of a line without its newline; None when it is none at all."""
    parts = _LINE.fullmatch(line)
    if parts is None:
        return None
    body, said = parts[1], parts[2].decode("ascii")
    try:
        fields = json.loads(body + b"}")
        sequence, kind, previous = fields.pop("sequence"), fields.pop("kind"), fields.pop("previous")
    except (ValueError, KeyError, RecursionError):
        return None
    if type(sequence) is not int or type(kind) is not str or type(previous) is not str:
        return None
    return Entry(sequence, kind, previous, said, _hash(body) == said, fields)


def _hash(body: bytes) -> str:
    return hashlib.sha256(_DOMAIN + body).hexdigest()

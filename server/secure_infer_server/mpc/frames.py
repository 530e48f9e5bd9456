"""The frames that two parties exchange on a lane.

A frame is a header of 24 bytes (kind, message number, request number, payload length; little-endian), then its payload.
A lane carries one request at a time. Party 0 leads: it numbers requests from one and opens each with START, message 0;
the messages of a round have one number, from one, and one length. The follower's first DATA is its agreement:

    party 0                               party 1
    HELLO    0.0  version, party, ...  <->  HELLO    0.0     once a lane, party 1 first: fresh nonces of 32 bytes
    REFUSED  0.0                        ->                   in its place, to a party 1 that does not fit; ends the lane
    START    7.0  the request's header  ->
    DATA     7.1  800 bytes            <->  DATA     7.1     agreed, and the first round
    DATA     7.2  64 bytes             <->  DATA     7.2
    START    8.0                        ->                   the follower holds another model
    DATA     8.1                        ->                   perhaps sent before the refusal came: the follower skips it
                                       <-   REFUSED  8.0     a catalogued error, which the leader raises; the lane stays up
    START    9.0                        ->                   a program without a round
                                       <-   AGREED   9.0

Whatever does not fit ends the lane: another kind or number, another length, silence, an error after a round.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum

from secure_infer.errors import CATALOGUE, PeerFailure, SecureInferError

HEADER = struct.Struct("<IIQQ")
"""Kind, message, request, length. Its size keeps the words of a payload aligned."""
MAX_START = 64 << 10
MAX_REFUSAL = 4 << 10
MAX_DATA = 1 << 30
NONCE_BYTES = 32
INSTANCE_BYTES = 16
VERSION = 2
_HELLO = struct.Struct("<8sHHHH16s32s")
_MAGIC = b"SI-LANES"
_MESSAGE_CHARACTERS = 1000


class Misfit(PeerFailure):
    """Party 0 does not take party 1 in; both know why."""


class Kind(IntEnum):
    HELLO = 1
    START = 2
    AGREED = 3
    REFUSED = 4
    DATA = 5


_CAPS = {
    Kind.HELLO: _HELLO.size,
    Kind.START: MAX_START,
    Kind.AGREED: 0,
    Kind.REFUSED: MAX_REFUSAL,
    Kind.DATA: MAX_DATA,
}


@dataclass(frozen=True)
class Frame:
    """A header. `str` is how messages name it: "DATA 7.2 of 64 bytes"."""

    kind: Kind
    request: int
    message: int
    length: int

    def __str__(self) -> str:
        return f"{self.kind.name} {self.request}.{self.message} of {self.length} bytes"

    def pack(self) -> bytes:
        if self.length > _CAPS[self.kind]:
            raise PeerFailure(f"peer: {self} is too long to send, at most {_CAPS[self.kind]} bytes")
        return HEADER.pack(self.kind, self.message, self.request, self.length)

    @classmethod
    def unpack(cls, header: bytes | bytearray | memoryview) -> Frame:
        """The frame of the first bytes. Raises PeerFailure for an unknown kind or a length above the kind's cap."""
        kind, message, request, length = HEADER.unpack_from(header)
        if kind not in _CAPS or length > _CAPS[Kind(kind)]:
            raise PeerFailure("peer: expected a frame, got bytes that are none; is it a party of this version?")
        return cls(Kind(kind), request, message, length)


@dataclass(frozen=True)
class Hello:
    """What each party says first. lane, lanes: which lane of how many this is; both parties have the same number. instance:
    16 random bytes, those of all lanes of one process."""

    party: int
    lane: int
    lanes: int
    instance: bytes
    nonce: bytes

    def pack(self) -> bytes:
        """Header and payload."""
        payload = _HELLO.pack(_MAGIC, VERSION, self.party, self.lane, self.lanes, self.instance, self.nonce)
        return Frame(Kind.HELLO, 0, 0, len(payload)).pack() + payload

    @classmethod
    def unpack(cls, data: bytes | bytearray, party: int) -> Hello:
        """The hello of `party`, header and payload; raises PeerFailure for anything else."""
        frame = Frame.unpack(data)
        if frame != Frame(Kind.HELLO, 0, 0, _HELLO.size):
            raise PeerFailure(f"peer: expected a hello, got {frame}")
        magic, version, sender, lane, lanes, instance, nonce = _HELLO.unpack_from(data, HEADER.size)
        if magic != _MAGIC or version != VERSION:
            raise PeerFailure(f"peer: expected a party that speaks version {VERSION}, got another or none")
        if sender != party:
            raise PeerFailure(f"peer: expected party {party}, got party {sender}; give one --id 0, the other --id 1")
        if lane >= lanes:
            raise PeerFailure(f"peer: expected a lane below {lanes}, got {lane}")
        return cls(sender, lane, lanes, instance, nonce)


HELLO_BYTES = HEADER.size + _HELLO.size


def pack_refusal(error: SecureInferError) -> bytes:
    """The payload of REFUSED: reason and message, JSON."""
    text = {"reason": error.reason, "message": error.message[:_MESSAGE_CHARACTERS]}
    payload = json.dumps(text, ensure_ascii=False).encode()
    return payload if len(payload) <= MAX_REFUSAL else json.dumps(text | {"message": error.reason}).encode()


def unpack_refusal(payload: bytes | bytearray) -> SecureInferError:
    """The peer's error as itself; PeerFailure when it is none of the catalogue."""
    try:
        text = json.loads(bytes(payload))
        reason, message = text["reason"], text["message"]
        return CATALOGUE[reason](f"the other party: {message[:_MESSAGE_CHARACTERS]}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerFailure("peer: refused the request, with an error that is none of this version's catalogue")

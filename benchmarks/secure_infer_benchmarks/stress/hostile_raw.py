"""Bytes on sockets, beneath gRPC: frames of lanes between parties, frames of HTTP/2, requests to metrics ports, and noise.

Each function returns the port and the pieces that are written to it.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_texts import json_changed
from secure_infer_benchmarks.stress.mutations import INTERESTING, mutated, noisy
from secure_infer_server.mpc.frames import HEADER, INSTANCE_BYTES, MAX_DATA, NONCE_BYTES, Hello, Kind

Pieces = tuple[str, Sequence[bytes]]

LANES = 4
PORTS = (
    *(
        "ckks",
        "open",
        "dealer",
        "party0",
        "party1",
        "loose-dealer",
        "loose-party0",
        "loose-party1",
        "lane",
        "loose-lane",
    ),
    *("ckks metrics", "open metrics", "dealer metrics", "party0 metrics", "party1 metrics"),
)
_HTTP2 = ("open", "open", "open", "loose-dealer", "loose-party0", "loose-party1", "ckks")


def anywhere(rng: Random, corpus: Corpus) -> Pieces:
    """Noise, or what belongs to another protocol, at any port."""
    hello = rng.choice(
        (
            b"",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            PREFACE,
            PREFACE + frame(4, 0, 0, b""),
            bytes.fromhex("16030100c8010000c40303") + rng.randbytes(197),  # the beginning of a TLS handshake
            bytes.fromhex("1503030002022a"),
            b"SSH-2.0-x\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            rng.randbytes(rng.choice((1, 24, 300, 4000))),
            rng.choice(corpus.material.messages),
        )
    )
    return rng.choice(PORTS), [noisy(rng, hello, corpus.material) if rng.random() < 0.7 else hello]


def metrics(rng: Random, corpus: Corpus) -> Pieces:
    path = rng.choice(
        (b"/metrics", b"/", b"/../../etc/passwd", b"/metrics?name[]=x", b"*", b"/" + b"a" * 5000, b"/%ff%00")
    )
    verb = rng.choice((b"GET", b"HEAD", b"POST", b"PUT", b"X" * 100, b"CONNECT"))
    fields = rng.choice(
        (b"", b"Accept: " + b"a," * 2000, b"Content-Length: -1\r\n", b"Host: \xff\xfe\r\n", b"A:b\r\n" * 200)
    )
    request = verb + b" " + path + b" HTTP/1.1\r\n" + fields + b"\r\n" + corpus.material.canary
    port = rng.choice(("ckks metrics", "open metrics", "dealer metrics", "party0 metrics"))
    return port, [noisy(rng, request, corpus.material) if rng.random() < 0.5 else request]


# Lanes.


def lane(rng: Random, corpus: Corpus) -> Pieces:
    """At party 0, as a party 1: a hello, and what may come after it."""
    pieces = [hello(rng, 1)]
    if rng.random() < 0.5:
        pieces = [noisy(rng, pieces[0], corpus.material)]
    pieces += [_lane_frame(rng, corpus) for _ in range(rng.choice((0, 1, 1, 3)))]
    where = "lane" if rng.random() < 0.1 else "loose-lane"
    return where, pieces


def starts(rng: Random, corpus: Corpus) -> Pieces:
    """At party 1, as its leader: frames after a sound hello, each on its own. See `hostile_leader`."""
    if rng.random() < 0.7:
        start = rng.choice(corpus.starts)
        payload = rng.choice(
            (json_changed(rng, start, corpus.material), b"?" + rng.randbytes(rng.choice((0, 15, 16, 17))))
        )
        return "loose-party1", [payload]
    return "loose-party1", [b"", _lane_frame(rng, corpus)]


def hello(rng: Random, party: int, number: int | None = None) -> bytes:
    """A sound one, with nonce and instance from the generator."""
    number = rng.randrange(LANES) if number is None else number
    return Hello(party, number, LANES, rng.randbytes(INSTANCE_BYTES), rng.randbytes(NONCE_BYTES)).pack()


def _lane_frame(rng: Random, corpus: Corpus) -> bytes:
    kind = rng.choice((*Kind, 0, 6, 1 << 31))
    payload = noisy(rng, rng.choice(corpus.starts), corpus.material)
    length = rng.choice((len(payload), len(payload), len(payload), 0, MAX_DATA, MAX_DATA + 1, (1 << 64) - 1))
    number = rng.choice((0, 1, 2, (1 << 32) - 1))
    return HEADER.pack(kind, number, rng.choice((0, 1, 2, (1 << 64) - 1)), length) + payload


# HTTP/2 (RFC 9113), as far as it takes to break it.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream & 0xFFFFFFFF) + payload


def http2(rng: Random, corpus: Corpus) -> Pieces:
    """A connection that begins well, makes a call or two, and does what it should not."""
    calls = rng.choice((0, 1, 1, 2))
    pieces = [PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, 1, 0, b"")]
    for number in range(calls):
        stream = 2 * number + 1
        method = rng.choice(list(corpus.streams))
        message = mutated(rng, rng.choice(corpus.streams[method])[0][:40_000], corpus.material)[:16_000]
        block = _block(rng, b"/" + (b"" if "." in method else b"secure_infer.v1.") + method.encode())
        pieces.append(frame(HEADERS, END_HEADERS, stream, block) + _message(rng, stream, message))
    pieces.append(_abuse(rng))
    if rng.random() < 0.2:
        pieces = [noisy(rng, b"".join(pieces), corpus.material)]
    return rng.choice(_HTTP2), [piece[: 1 << 20] for piece in pieces]


def _block(rng: Random, path: bytes) -> bytes:
    """Header fields, each in full (RFC 7541, 6.2.2), some of them wrong."""
    if rng.random() < 0.02:
        path = rng.choice((b"/\xff\xfe", b"\x80", path + b"\xc3\x28", path[:5] + b"\0"))
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-timeout", b"5S")]
    change = rng.randrange(10)
    if change == 0:
        del fields[rng.randrange(len(fields))]
    elif change == 1:
        fields.insert(
            rng.randrange(len(fields)),
            rng.choice(((b"X-UPPER", b"1"), (b":path", b"/again"), (b"", b""), (b"a\0b", b"\r\n"))),
        )
    elif change == 2:
        fields[-1] = (b"grpc-timeout", rng.choice((b"0n", b"99999999H", b"-1S", b"x", b"99999999999999999999S")))
    elif change == 3:
        fields.append((b"grpc-encoding", rng.choice((b"gzip", b"deflate", b"identity", b"nonsense"))))
    elif change == 4:
        fields.append((b"x-long", b"v" * rng.choice((4000, 8000, 15_000))))
    block = b"".join(b"\0" + _prefixed(name) + _prefixed(value) for name, value in fields)
    if rng.random() < 0.1:
        block = (
            rng.choice(
                (
                    b"\x3f\xe1\xff\xff\xff\x0f",
                    b"\x80",
                    b"\xff\xff\xff\xff\x7f",
                    b"\0\xff\xff\xff",
                    b"\x40\x85\xff\xff\xff\xff\xff",
                )
            )
            + block
        )
    return block


def _prefixed(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    rest, out = size - 127, bytearray([127])
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out) + text


def _message(rng: Random, stream: int, message: bytes) -> bytes:
    """A message of gRPC: whether it is compressed, its length, itself."""
    compressed, length = 0, len(message)
    draw = rng.random()
    if draw < 0.1:
        length = rng.choice(INTERESTING) & 0xFFFFFFFF
    elif draw < 0.2:
        compressed = rng.choice((1, 2, 255))
    elif draw < 0.23:
        message, compressed = _bomb(), 1
        length = len(message)
    payload = bytes([compressed]) + struct.pack(">I", length) + message
    parts = [payload[at : at + 16_000] for at in range(0, len(payload), 16_000)]
    frames = [frame(DATA, 0, stream, part) for part in parts[:-1]]
    return b"".join(frames) + frame(DATA, rng.choice((END_STREAM, END_STREAM, 0, 9)), stream, parts[-1])


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """A message of 32 MiB, packed into 32 kB."""
    return gzip.compress(bytes(32 << 20))


def _abuse(rng: Random) -> bytes:
    stream, many = rng.choice((0, 1, 2, 3, 5, (1 << 31) - 1)), rng.choice((1, 10, 200))
    made = (
        frame(rng.randrange(12), rng.randrange(256), stream, rng.randbytes(rng.choice((0, 4, 8, 100)))),
        frame(CONTINUATION, 0, stream, b"\0\1a\1b" * 20) * many,
        frame(HEADERS, 0, 1, b"\0\1a\1b") + frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 500) * many,
        frame(PING, 0, 0, bytes(8)) * many,
        frame(SETTINGS, 0, 0, struct.pack(">HI", rng.randrange(9), rng.choice((0, 1, 1 << 31, (1 << 32) - 1)))) * many,
        b"".join(
            frame(HEADERS, END_HEADERS, 101 + 2 * i, b"\0\1a\1b") + frame(RST, 0, 101 + 2 * i, bytes(4))
            for i in range(many)
        ),
        frame(WINDOW, 0, stream, struct.pack(">I", rng.choice((0, 1, (1 << 31) - 1)))) * many,
        frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 0)),
        frame(PUSH, END_HEADERS, stream, bytes(4)),
        frame(GOAWAY, 0, 0, bytes(8)),
        frame(DATA, 8, stream, b"\xff" + bytes(10)),
        frame(DATA, 0, stream, b"", length=(1 << 24) - 1),
        b"",
    )
    return rng.choice(made)

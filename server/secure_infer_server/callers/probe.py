"""What a TLS server negotiates, asked by a ClientHello without a key share.

A server of TLS 1.3 that supports the one group offered, and gets no key share for it, answers with a HelloRetryRequest that
names the group (RFC 8446, sections 4.1.4 and 4.2.8); one that does not support it refuses. So a hybrid group can be told
without being able to compute it.
"""

from __future__ import annotations

import os
import socket
import struct

GROUPS = {"X25519MLKEM768": 0x11EC, "X25519": 0x001D, "P-256": 0x0017, "P-384": 0x0018, "P-521": 0x0019}
"""Code points of IANA's registry of TLS supported groups."""

_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_SUITES = (0x1301, 0x1302, 0x1303)
_SIGNATURES = (0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401)
_KEY_SHARE = 51


def groups(host: str, port: int, timeout: float = 5.0) -> list[str]:
    """Those of `GROUPS` that the server there takes for the key exchange of TLS 1.3. Raises OSError when there is none."""
    return [name for name, group in GROUPS.items() if _retry_group(host, port, group, timeout) == group]


def _retry_group(host: str, port: int, group: int, timeout: float) -> int | None:
    with socket.create_connection((host.strip("[]"), port), timeout=timeout) as link:
        link.sendall(client_hello(group))
        try:
            return selected_group(_record(link))
        except ConnectionError:
            return None


def _record(link: socket.socket) -> bytes:
    """The first record's payload; empty unless it is of a handshake."""
    header = _exactly(link, 5)
    return _exactly(link, int.from_bytes(header[3:])) if header[:1] == b"\x16" else b""


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = link.recv(size - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def client_hello(group: int) -> bytes:
    """A record with a ClientHello of TLS 1.3 for that group, with no key share."""
    extensions = b"".join(
        (
            _extension(10, _vector16(struct.pack(">H", group))),
            _extension(13, _vector16(struct.pack(f">{len(_SIGNATURES)}H", *_SIGNATURES))),
            _extension(16, _vector16(b"\x02h2")),
            _extension(43, b"\x02\x03\x04"),
            _extension(_KEY_SHARE, _vector16(b"")),
        )
    )
    session = os.urandom(32)
    suites = struct.pack(f">{len(_SUITES)}H", *_SUITES)
    body = b"\x03\x03" + os.urandom(32) + b"\x20" + session + _vector16(suites) + b"\x01\x00" + _vector16(extensions)
    handshake = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + _vector16(handshake)


def selected_group(message: bytes) -> int | None:
    """The group that a HelloRetryRequest names; None for any other message."""
    if message[:1] != b"\x02" or message[6:38] != _RETRY:
        return None
    place = 39 + message[38] + 3  # session id, suite, compression
    place, end = place + 2, place + 2 + int.from_bytes(message[place : place + 2])
    while place + 4 <= end:
        kind, size = struct.unpack_from(">HH", message, place)
        if kind == _KEY_SHARE and size == 2:
            return int.from_bytes(message[place + 4 : place + 6])
        place += 4 + size
    return None


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">H", kind) + _vector16(data)


def _vector16(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data

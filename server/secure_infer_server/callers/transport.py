"""TLS 1.3 and nothing older, by the one means that gRPC's Python build leaves; and what was negotiated.

gRPC for Python has no setting for the least version of TLS (grpc/grpc#37305); its servers take 1.2 and 1.3. The cipher
suites of 1.2 can be chosen, by an environment variable that is read when grpc is imported; those of 1.3 are fixed. So
`hold_to_tls13` names a suite that only serves peers with a pre-shared key, which gRPC never has: a handshake of 1.2
finds no suite in common and ends at once, in servers and channels alike. `accepts_tls12` asks a listening
server whether that worked, and `require_tls13` refuses calls of older connections where gRPC says the version (from 1.85).
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from secure_infer.errors import Unauthenticated

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
SUITE = "ECDHE-PSK-CHACHA20-POLY1305"
_HANDSHAKE = 22  # record type of a ServerHello; a refusal is an alert (21), or the end of the stream

AuthContext = Mapping[str, Sequence[bytes]]


def hold_to_tls13() -> bool:
    """Hold gRPC in this process, and in those it starts, to TLS 1.3. To be called before grpc is imported; afterwards it
    does nothing. Returns whether this process is held; a variable that the operator has set to something else is left alone."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(VARIABLE, SUITE)
    return os.environ.get(VARIABLE) == SUITE


def accepts_tls12(host: str, port: int, timeout: float = 5.0) -> bool:
    """Whether the server there answers a handshake of TLS 1.2 with anything but a refusal. Raises OSError when there is
    no server. No certificate is needed: a server chooses the version before it asks for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, and nothing believed
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection((host.strip("[]"), port), timeout=timeout) as link:
        link.sendall(outgoing.read())
        try:
            return link.recv(1)[:1] == bytes([_HANDSHAKE])
        except ConnectionError:
            return False


@dataclass(frozen=True)
class Negotiated:
    """What a connection agreed on, as far as gRPC says; "" where it does not (before 1.85).

    version: "TLSv1.3". group: of the key exchange, "X25519" or, hybrid with ML-KEM, "X25519MLKEM768".
    """

    version: str
    group: str


def negotiated(auth: AuthContext) -> Negotiated:
    """Of `ServicerContext.auth_context()`."""
    return Negotiated(_text(auth, "ssl_tls_version"), _text(auth, "ssl_negotiated_key_exchange_group"))


def require_tls13(auth: AuthContext) -> None:
    """Raise Unauthenticated for a call over TLS that says it is older than 1.3."""
    version = negotiated(auth).version
    if version not in ("", "TLSv1.3"):
        raise Unauthenticated(f"transport: this server takes TLS 1.3, the connection is {version}; update the client")


def _text(auth: AuthContext, name: str) -> str:
    found = auth.get(name)
    return bytes(found[0]).decode("ascii", "replace") if found else ""

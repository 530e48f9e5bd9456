"""Channels and sockets to the servers under stress."""

from __future__ import annotations

import ssl
from typing import Any

import grpc

from secure_infer_benchmarks.stress.hostile_layout import Served

OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)


def channel(served: Served, where: str, identity: str, *, aio: bool = False) -> Any:
    """A channel to a process, as a caller with that certificate where it asks for one."""
    made: Any = grpc.aio if aio else grpc
    found = served.addresses[where]
    if not found.tls:
        return made.insecure_channel(found.address, OPTIONS)
    credentials = grpc.ssl_channel_credentials(*served.credentials(identity))
    return made.secure_channel(found.address, credentials, OPTIONS)


def tls_context(served: Served, identity: str) -> ssl.SSLContext:
    """For sockets without gRPC."""
    context = ssl.create_default_context(cafile=str(served.pki / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(served.pki / f"{identity}.pem", served.pki / f"{identity}.key")
    context.set_alpn_protocols(["h2"])
    return context

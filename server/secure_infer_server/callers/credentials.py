"""A server's certificate, key and client CA, read again when their files change: renewed without a restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from secure_infer import pem
from secure_infer_server.callers import own
from secure_infer_server.callers.watched import Watched
from secure_infer_server.mpc import roles
from secure_infer_server.mpc.roles import Role


@dataclass
class InForce:
    """ends: when the certificate that new connections get ends, in seconds since 1970; None before there is one."""

    ends: float | None = None


def server_credentials(
    certificate: Path,
    key: Path,
    client_ca: Path | None,
    in_force: InForce | None = None,
    role: Role | None = None,
) -> grpc.ServerCredentials:
    """Credentials of a gRPC server from PEM files; with `client_ca`, clients must present a certificate it signed.

    Every new connection looks at the files' dates (three `stat`), and a change is in force from that connection on.
    Connections that stand keep what they were made with. While key and certificate do not belong together, as
    between two renames, the earlier pair stays in force. in_force: is told of each pair. role: which each certificate has
    to name; None: any, or none.
    Raises SettingsError when the files are wrong now.
    """

    def read() -> Any:
        pair = pem.key_pair("--tls-key", key, "--tls-cert", certificate)
        leaf = pem.chain("--tls-cert", pair[1])[0]
        own.require_for_servers(leaf, certificate)
        if role is not None:
            roles.require_own(pair[1], str(certificate), role)
        authority = None if client_ca is None else pem.certificates("--client-ca", client_ca)
        configuration = grpc.ssl_server_certificate_configuration([pair], authority)
        if in_force is not None:
            in_force.ends = leaf.not_valid_after_utc.timestamp()
        return configuration

    files = [certificate, key] if client_ca is None else [certificate, key, client_ca]
    watched = Watched("certificates of this server", read, lambda: files)

    def changed() -> Any:
        return watched.value if watched.refresh() else None

    return grpc.dynamic_ssl_server_credentials(watched.value, changed, client_ca is not None)

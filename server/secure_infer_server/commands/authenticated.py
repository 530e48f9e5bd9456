"""Options of processes that know each other by certificates: where they listen, and as whom."""

from __future__ import annotations

import argparse
from pathlib import Path

from secure_infer import address, pem
from secure_infer.errors import SettingsError
from secure_infer_server.commands import drain
from secure_infer_server.flags import CONFIG
from secure_infer_server.mpc import roles
from secure_infer_server.mpc.endpoint import Identity, Listening
from secure_infer_server.mpc.roles import Role


def add_options(parser: argparse.ArgumentParser) -> None:
    """--listen, and --tls-cert, --tls-key and --client-ca or --insecure; --drain."""
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="port 0 picks a free one; the ready line says which"
    )
    parser.add_argument(
        "--insecure", action=argparse.BooleanOptionalAction, default=False, help="no TLS, no roles; loopback only"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="F", help="certificate chain with this process's role, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="F", help="its private key, PEM")
    parser.add_argument("--client-ca", type=Path, metavar="F", help="the CA that signed everybody's certificates, PEM")
    drain.add_option(parser)


def add_configuration(parser: argparse.ArgumentParser, of: str) -> None:
    """--config and --check-config. of: what the file holds, in words."""
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of {of}; default what {CONFIG} names")
    parser.add_argument(
        "--check-config", action="store_true", help="load everything, say what is on and off, and serve nothing"
    )


def listening(options: argparse.Namespace, role: Role) -> Listening:
    """Raises SettingsError unless all three files are given, with a certificate of that role, or --insecure and an address on
    loopback."""
    files = (options.tls_cert, options.tls_key, options.client_ca)
    given = [file for file in files if file is not None]
    if options.insecure and given:
        raise SettingsError("--insecure contradicts --tls-cert, --tls-key and --client-ca; give one or the others")
    if not options.insecure and len(given) < len(files):
        raise SettingsError(
            "parties and dealer know each other by their certificates: give --tls-cert, --tls-key and --client-ca "
            "(`secure-infer certs dev` makes some to try out), or --insecure for loopback only"
        )
    if given:
        roles.require_own(pem.certificates("--tls-cert", options.tls_cert), str(options.tls_cert), role)
    host, port = address.parse(options.listen, "--listen (port 0 picks a free one)")
    return Listening(host, port, Identity(*files) if given else None, drain.seconds(options), role)

"""Roles: what a certificate says its holder is, over sockets and over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_infer.errors import PrivacyRefused
from secure_infer_server.commands import certs
from secure_infer_server.mpc import roles
from secure_infer_server.mpc.roles import Role


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certs.make(tmp_path_factory.mktemp("pki"), ["localhost", "127.0.0.1"], "ward-7", 2)


@pytest.fixture(scope="module")
def seen() -> list[tuple[Role | None, str]]:
    return []


def caller(pem: bytes | None, kind: bytes = b"ssl") -> Any:
    context = {"transport_security_type": [kind]} | ({} if pem is None else {"x509_pem_cert": [pem]})
    return SimpleNamespace(auth_context=lambda: context)


def test_certificates_of_every_role(pki: dict[str, Path]) -> None:
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    expected = {
        "party0": (Role.PARTY_0, both),
        "party1": (Role.PARTY_1, both),
        "dealer": (Role.DEALER, {ExtendedKeyUsageOID.SERVER_AUTH}),
        "client": (Role.CLIENT, {ExtendedKeyUsageOID.CLIENT_AUTH}),
        "server": (Role.CLIENT, {ExtendedKeyUsageOID.SERVER_AUTH}),
    }
    for name, (role, usages) in expected.items():
        pem = pki[f"{name}.pem"].read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        assert roles.of_caller(caller(pem)) is role
        assert set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages
        if ExtendedKeyUsageOID.SERVER_AUTH in usages:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert "localhost" in names.get_values_for_type(x509.DNSName)
        assert pki[f"{name}.key"].stat().st_mode & 0o077 == 0


def test_one_role_or_none() -> None:
    assert roles.of_uris(["https://example.org"]) is Role.CLIENT
    assert roles.of_uris(["https://example.org", Role.PARTY_1]) is Role.PARTY_1
    assert roles.of_uris([Role.PARTY_0, Role.PARTY_0]) is Role.PARTY_0
    for wrong in ([Role.PARTY_0, Role.PARTY_1], ["urn:secure-infer:admin"], ["URN:secure-infer:party:0"]):
        assert roles.of_uris(wrong) is None
    assert roles.of_peer_certificate({}) is None
    assert roles.of_peer_certificate(None) is None
    # A host name that looks like a role is none.
    assert roles.of_peer_certificate({"subjectAltName": (("DNS", Role.PARTY_0),)}) is Role.CLIENT
    assert [roles.of_party(party) for party in (0, 1)] == [Role.PARTY_0, Role.PARTY_1]


def test_require(pki: dict[str, Path]) -> None:
    party, client = (caller(pki[f"{name}.pem"].read_bytes()) for name in ("party0", "client"))
    roles.require(party, Role.PARTY_0, Role.PARTY_1)
    roles.require(client, Role.CLIENT)
    roles.require(caller(None), Role.CLIENT)
    roles.require(caller(None, b"insecure"), Role.DEALER)
    with pytest.raises(PrivacyRefused, match=r"for the role client, .* has party:0"):
        roles.require(party, Role.CLIENT)
    for other in (client, caller(None)):
        with pytest.raises(PrivacyRefused, match="party:0 or party:1"):
            roles.require(other, Role.PARTY_0, Role.PARTY_1)


def test_identity(pki: dict[str, Path]) -> None:
    assert roles.identity(caller(pki["client.pem"].read_bytes())) == "cn:ward-7"
    assert roles.identity(caller(None)) == roles.identity(caller(None, b"insecure")) == roles.ANONYMOUS


@pytest.fixture(scope="module")
def target(pki: dict[str, Path], seen: list[tuple[Role | None, str]]) -> Iterator[tuple[str, str]]:
    """Addresses of a TLS and of an insecure server that note who called."""

    class Noting(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: Any) -> Any:
            def note(_: bytes, context: Any) -> bytes:
                seen.append((None if roles.is_insecure(context) else roles.of_caller(context), roles.identity(context)))
                return b""

            return grpc.unary_unary_rpc_method_handler(note)

    pair = [(pki["dealer.key"].read_bytes(), pki["dealer.pem"].read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, pki["ca.pem"].read_bytes(), True)
    server = grpc.server(ThreadPoolExecutor(2), handlers=(Noting(),))
    ports = server.add_secure_port("127.0.0.1:0", credentials), server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    server.stop(0)


@pytest.mark.parametrize("name", ["party0", "party1", "client"])
def test_roles_over_grpc(target: tuple[str, str], pki: dict[str, Path], seen: list[Any], name: str) -> None:
    files = (pki["ca.pem"], pki[f"{name}.key"], pki[f"{name}.pem"])
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))
    with grpc.secure_channel(target[0], credentials) as channel:
        channel.unary_unary("/a/b")(b"", timeout=10)
    who = "ward-7" if name == "client" else name
    role = {"party0": Role.PARTY_0, "party1": Role.PARTY_1, "client": Role.CLIENT}[name]
    assert seen[-1] == (role, f"cn:{who}")


def test_insecure_callers_are_anonymous(target: tuple[str, str], seen: list[Any]) -> None:
    with grpc.insecure_channel(target[1]) as channel:
        channel.unary_unary("/a/b")(b"", timeout=10)
    assert seen[-1] == (None, roles.ANONYMOUS)

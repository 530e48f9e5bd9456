"""Who calls: certificates, tokens and loopback, over contexts as given and over real connections, with threads and asyncio."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_infer.errors import Unauthenticated
from secure_infer_server.callers import authority
from secure_infer_server.callers.authenticator import Authenticator, AuthenticatorSettings
from secure_infer_server.callers.caller import Caller, Factor
from secure_infer_server.callers.credentials import server_credentials
from secure_infer_server.callers.tokens import Issuer

from .conftest import AUDIENCE, ISSUER, claims, jwk, write_jwks

Made = Callable[..., Any]


@pytest.fixture(scope="module")
def authenticator(tmp_path_factory: pytest.TempPathFactory, private_keys: dict[str, Any]) -> Authenticator:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write_jwks(path, [jwk("k", "ES256", private_keys["ES256"])])
    return Authenticator(AuthenticatorSettings((Issuer(ISSUER, AUDIENCE, path),)))


@pytest.fixture
def bearer(private_keys: dict[str, Any]) -> tuple[str, str]:
    return "authorization", "Bearer " + token(private_keys)


def token(private_keys: dict[str, Any], **changed: Any) -> str:
    return jwt.encode(claims(**changed), private_keys["ES256"], "ES256", headers={"kid": "k"})


def test_certificates(authenticator: Authenticator, context: Made, pki: dict[str, Path]) -> None:
    caller = authenticator.caller(context("client"))
    leaf = x509.load_pem_x509_certificate(pki["client.pem"].read_bytes())
    assert caller == Caller(
        "cn:ward-7",
        "client",
        frozenset({Factor.CERTIFICATE}),
        f"sha256:{leaf.fingerprint(hashes.SHA256()).hex()}",
    )
    assert authenticator.caller(context("party1")).role == "party:1"
    assert authenticator.caller(context("dealer", kind=b"tls")).identity == "cn:dealer"


def test_tokens(authenticator: Authenticator, context: Made, bearer: tuple[str, str]) -> None:
    assert authenticator.caller(context(None, bearer)) == Caller(
        f"jwt:{ISSUER}:anna", "client", frozenset({Factor.TOKEN})
    )
    both = authenticator.caller(context("client", bearer, ("x-secure-infer-otp", "123456")))
    assert both.identity == f"jwt:{ISSUER}:anna"
    assert both.factors == {Factor.TOKEN, Factor.CERTIFICATE}
    assert both.code == "123456"
    assert "123456" not in repr(both)


def test_a_token_is_not_a_certificate(
    authenticator: Authenticator, context: Made, private_keys: dict[str, Any]
) -> None:
    for subject in ("cn:ward-7", "ward-7", "anonymous"):
        header = ("authorization", f"bearer {token(private_keys, sub=subject)}")
        assert authenticator.caller(context(None, header)).identity == f"jwt:{ISSUER}:{subject}"


def test_nobody(authenticator: Authenticator, context: Made, bearer: tuple[str, str]) -> None:
    wrong = ("authorization", "Bearer x.y.z")
    for given, message in (
        (context(), "no client certificate and no token"),
        (context("client", wrong), "token"),  # a certificate does not make up for it
        (context(None, ("authorization", "Basic YTpi")), "Bearer TOKEN"),
        (context(None, ("authorization", b"\xff")), "Bearer TOKEN"),
        (context(None, bearer, bearer), "one token"),
        (context("party0", bearer), "takes none"),
        (context("client", ssl_tls_version=b"TLSv1.2"), r"is TLSv1\.2"),
        (context(None, kind=b"local"), "expected TLS"),
        (context(None, bearer, kind=b"insecure", peer="ipv4:127.0.0.1:9"), "over TLS"),
        (context(None, kind=b"insecure"), "loopback only"),
    ):
        with pytest.raises(Unauthenticated, match=message):
            authenticator.caller(given)


def test_loopback_is_anonymous(authenticator: Authenticator, context: Made) -> None:
    for peer in ("ipv4:127.0.0.1:40000", "ipv6:%5B::1%5D:40000", "ipv6:[::1]:40000", "unix:/run/x"):
        caller = authenticator.caller(context(None, kind=b"insecure", peer=peer))
        assert caller == Caller("anonymous", "client")


def test_a_certificate_that_expired_on_a_standing_connection(authenticator: Authenticator) -> None:
    ca = authority.new_authority("ca", 2)
    key = authority.new_key().public_key()

    def given(certificate: x509.Certificate) -> Any:
        auth = {"transport_security_type": [b"ssl"], "x509_pem_cert": [certificate.public_bytes(Encoding.PEM)]}
        return SimpleNamespace(auth_context=lambda: auth, invocation_metadata=tuple, peer=lambda: "ipv4:10.0.0.1:1")

    sound = ca.sign("client", "ward-7", [], key, 1)
    assert authenticator.caller(given(sound)).identity == "cn:ward-7"
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
    past = ca._signed(authority._common("ward-7"), key, datetime.timedelta(seconds=-60), usage, [])
    with pytest.raises(Unauthenticated, match="expired since"):
        authenticator.caller(given(past))
    no_usages = ca._signed(authority._common("ward-7"), key, datetime.timedelta(days=1), [], [])
    with pytest.raises(Unauthenticated, match="cannot be read"):
        authenticator.caller(given(no_usages))


class Told(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers with who called."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.authenticator = authenticator

    def told(self, context: Any) -> bytes:
        try:
            caller = self.authenticator.caller(context)
        except Unauthenticated as error:
            return error.message.encode()
        return f"{caller.identity} {','.join(sorted(caller.factors))} {caller.code}".encode()

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self.told(context))


class ToldAsync(Told):
    def service(self, _: Any) -> Any:
        async def answer(_: bytes, context: Any) -> bytes:
            return self.told(context)

        return grpc.unary_unary_rpc_method_handler(answer)


def ask(pki: dict[str, Path], ports: list[int], private_keys: dict[str, Any]) -> list[str]:
    """What a certificate, a token alone, both, and insecure loopback are told; `ports`: mutual TLS, TLS, insecure."""
    root = pki["ca.pem"].read_bytes()
    own = (pki["client.key"].read_bytes(), pki["client.pem"].read_bytes())
    carried = grpc.access_token_call_credentials(token(private_keys))
    mutual, plain = grpc.ssl_channel_credentials(root, *own), grpc.ssl_channel_credentials(root)
    channels = [
        grpc.secure_channel(f"127.0.0.1:{ports[0]}", mutual),
        grpc.secure_channel(f"127.0.0.1:{ports[1]}", grpc.composite_channel_credentials(plain, carried)),
        grpc.secure_channel(f"127.0.0.1:{ports[0]}", grpc.composite_channel_credentials(mutual, carried)),
        grpc.secure_channel(f"127.0.0.1:{ports[1]}", plain),
        grpc.insecure_channel(f"127.0.0.1:{ports[2]}"),
    ]
    told = []
    for channel in channels:
        with channel:
            answer = channel.unary_unary("/a/b")(b"", timeout=10, metadata=(("x-secure-infer-otp", "7"),))
            told.append(answer.decode())
    return told


EXPECTED = [
    "cn:ward-7 certificate 7",
    f"jwt:{ISSUER}:anna token 7",
    f"jwt:{ISSUER}:anna certificate,token 7",
    "no client certificate and no token; give either",
    "anonymous  7",
]


def listen(server: Any, pki: dict[str, Path]) -> list[int]:
    own = pki["server.pem"], pki["server.key"]
    return [
        server.add_secure_port("127.0.0.1:0", server_credentials(*own, pki["ca.pem"])),
        server.add_secure_port("127.0.0.1:0", server_credentials(*own, None)),
        server.add_insecure_port("127.0.0.1:0"),
    ]


def test_over_grpc(authenticator: Authenticator, pki: dict[str, Path], private_keys: dict[str, Any]) -> None:
    server = grpc.server(ThreadPoolExecutor(2), handlers=(Told(authenticator),))
    ports = listen(server, pki)
    server.start()
    assert ask(pki, ports, private_keys) == EXPECTED
    server.stop(0)


def test_over_grpc_aio(authenticator: Authenticator, pki: dict[str, Path], private_keys: dict[str, Any]) -> None:
    async def serve() -> list[str]:
        server = grpc.aio.server(handlers=(ToldAsync(authenticator),))
        ports = listen(server, pki)
        await server.start()
        told = await asyncio.to_thread(ask, pki, ports, private_keys)
        await server.stop(0)
        return told

    assert asyncio.run(serve()) == EXPECTED

"""Who is calling: a certificate that TLS has verified, a bearer token, or insecure loopback."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from secure_infer.errors import SettingsError, Unauthenticated
from secure_infer_server.callers.caller import Caller, Factor
from secure_infer_server.callers.tokens import Issuer, Tokens
from secure_infer_server.callers.transport import require_tls13
from secure_infer_server.callers.watched import Watched
from secure_infer_server.mpc import roles
from secure_infer_server.mpc.roles import Role

AUTHORIZATION = "authorization"
CODE = "x-secure-infer-otp"
_BEARER = "bearer "
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "unix:")


class Context(Protocol):
    """What is read of a ServicerContext, of grpc or grpc.aio."""

    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def peer(self) -> str: ...


@dataclass(frozen=True)
class AuthenticatorSettings:
    """issuers: whose tokens are taken; none: certificates only."""

    issuers: tuple[Issuer, ...] = ()

    def __post_init__(self) -> None:
        names = [issuer.name for issuer in self.issuers]
        for name in names:
            # "jwt:a:b" must be the subject "b" of "a", and never a subject of "a:b" cut elsewhere.
            clash = [other for other in names if other.startswith(f"{name}:")]
            if clash or names.count(name) > 1:
                other = (clash or [name])[0]
                raise SettingsError(f"token issuers: {name} and {other} would share identities; trust one of them")


class Authenticator:
    """Tells callers. Thread-safe; the files in `watched` are to be given to a `Watcher`."""

    def __init__(self, settings: AuthenticatorSettings) -> None:
        """Raises SettingsError when an issuer's keys cannot be read."""
        self._tokens = Tokens(settings.issuers)

    @property
    def watched(self) -> list[Watched[Any]]:
        return list(self._tokens.watched)

    def caller(self, context: Context) -> Caller:
        """The caller; raises Unauthenticated when nothing says who it is, or something that says so does not hold.

        With a certificate and a token, both must hold, and the token says who asks: a certificate of a party or
        dealer takes none. A token that does not hold is refused even where the certificate alone would do.
        """
        auth = context.auth_context()
        token, code = _credentials(context)
        kind = auth.get("transport_security_type", ())
        if list(kind) == [b"insecure"]:
            return _on_loopback(context, token, code)
        if list(kind) not in ([b"ssl"], [b"tls"]):
            raise Unauthenticated("transport: expected TLS, or insecure loopback")
        require_tls13(auth)
        found = auth.get("x509_pem_cert")
        if not found:
            if token is None:
                raise Unauthenticated("no client certificate and no token; give either")
            identity = self._tokens.identity(token)
            return Caller(identity, Role.CLIENT.short, frozenset({Factor.TOKEN}), code=code)
        seen: Any = SimpleNamespace(auth_context=lambda: auth)  # read once: gRPC makes a copy each time
        try:
            role, identity = roles.of_caller(seen), roles.identity(seen)
            fingerprint, until = _leaf(bytes(found[0]))
        except ValueError:  # signed by the client CA, and all the same not read by cryptography
            raise Unauthenticated("certificate: its extensions cannot be read; have it issued anew") from None
        if time.time() > until:  # TLS looked when the connection was made, which may be long ago
            raise Unauthenticated(
                "certificate: it has expired since this connection was made; renew it and connect again"
            )
        factors = {Factor.CERTIFICATE}
        if token is not None:
            if role is not Role.CLIENT:
                raise Unauthenticated("token: the certificate's role takes none; leave the token out")
            identity = self._tokens.identity(token)
            factors.add(Factor.TOKEN)
        return Caller(identity, None if role is None else role.short, frozenset(factors), fingerprint, code)


def _on_loopback(context: Context, token: str | None, code: str) -> Caller:
    if token is not None:
        raise Unauthenticated("token: it is only taken over TLS; this one crossed a plain connection, so replace it")
    if not context.peer().startswith(_LOOPBACK):
        raise Unauthenticated("transport: without TLS, loopback only")
    return Caller(roles.ANONYMOUS, Role.CLIENT.short, code=code)


def _credentials(context: Context) -> tuple[str | None, str]:
    """The bearer token and the one-time code among the metadata."""
    tokens: list[str] = []
    codes: list[str] = []
    for key, value in context.invocation_metadata() or ():
        if key == AUTHORIZATION:
            text = value if isinstance(value, str) else ""
            if not text.lower().startswith(_BEARER):
                raise Unauthenticated('metadata "authorization": expected "Bearer TOKEN"')
            tokens.append(text[len(_BEARER) :].strip())
        elif key == CODE and isinstance(value, str):
            codes.append(value.strip())
    if len(tokens) > 1 or len(codes) > 1:
        raise Unauthenticated("metadata: expected one token and one one-time code at most")
    return tokens[0] if tokens else None, codes[0] if codes else ""


@lru_cache(maxsize=256)
def _leaf(pem: bytes) -> tuple[str, float]:
    """Fingerprint of a certificate, and the end of its validity in seconds since the epoch."""
    certificate = x509.load_pem_x509_certificate(pem)
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    return f"sha256:{fingerprint}", certificate.not_valid_after_utc.timestamp()

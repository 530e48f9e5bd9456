"""One caller, as authenticated: who it is, by what, and which role its certificate gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Factor(StrEnum):
    """What vouches for a caller. The second factor is checked by the call that needs it."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True)
class Caller:
    """identity: "cn:NAME" or "sha256:HEX" of a certificate (`mpc.roles.identity`), "jwt:ISSUER:SUBJECT" of a token, or
    "anonymous" on insecure loopback: the prefixes keep a token's from ever being a certificate's. role: as the
    certificate names it ("client", "party:0", ...), "client" without one; None: a certificate with no role. factors: what vouched
    for it. fingerprint: "sha256:HEX" of its certificate, or "". code: the one-time code sent along, unchecked, or ""."""

    identity: str
    role: str | None
    factors: frozenset[Factor] = frozenset()
    fingerprint: str = ""
    code: str = field(default="", repr=False)

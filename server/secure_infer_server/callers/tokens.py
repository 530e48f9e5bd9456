"""Bearer tokens: JSON Web Tokens (RFC 7519) of the issuers that the operator trusts, checked as RFC 8725 advises.

Every issuer has its own keys, so that one cannot sign for another; the token's `kid` selects the key, and the key, not the
token, says the algorithm: a token signed with a public key as if it were a shared secret, or not signed at all, fails.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from secure_infer.errors import SettingsError, Unauthenticated
from secure_infer_server.callers.keysets import ALGORITHMS, KeySet, key_files, read_keys
from secure_infer_server.callers.watched import Watched

MAX_BYTES = 8192
MAX_SUBJECT = 256
REMEMBERED = 1024
_CLAIMS = ["iss", "aud", "sub", "exp", "nbf"]


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are taken. name: the `iss` claim. audience: the `aud` that must be among the token's. keys: a JWKS file
    (*.json), a public key in PEM (the file's stem is its `kid`), or a directory of these. algorithms: a subset of EdDSA
    (Ed25519), ES256 and RS256. leeway: seconds that clocks may differ. longest: seconds from `nbf` to `exp` at most."""

    name: str
    audience: str
    keys: Path
    algorithms: tuple[str, ...] = ALGORITHMS
    leeway: float = 10.0
    longest: float = 86_400.0

    def __post_init__(self) -> None:
        if not self.name or not self.audience:
            raise SettingsError("token issuer: expected the names of an issuer and of an audience, got an empty one")
        unknown = set(self.algorithms) - set(ALGORITHMS)
        if unknown or not self.algorithms:
            got = ", ".join(sorted(unknown)) or "none"
            raise SettingsError(
                f"token issuer {self.name}: expected algorithms among {', '.join(ALGORITHMS)}, got {got}"
            )
        if not 0 <= self.leeway <= 60:
            raise SettingsError(f"token issuer {self.name}: expected a leeway of 0 to 60 seconds, got {self.leeway:g}")
        if not 60 <= self.longest <= 2_678_400:
            raise SettingsError(
                f"token issuer {self.name}: expected a longest validity of 60 seconds to 31 days, got {self.longest:g}"
            )


class Tokens:
    """Checks tokens of some issuers. `watched` are their key files; a new set is in force as soon as it is read."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Raises SettingsError for keys that cannot be used."""
        self._issuers = {
            issuer.name: (
                issuer,
                Watched(
                    f"keys of token issuer {issuer.name}",
                    lambda issuer=issuer: read_keys(issuer.keys, issuer.algorithms),  # type: ignore[misc]
                    lambda issuer=issuer: key_files(issuer.keys),  # type: ignore[misc]
                ),
            )
            for issuer in issuers
        }
        self._known = _Remembered()

    @property
    def watched(self) -> list[Watched[KeySet]]:
        return [watched for _, watched in self._issuers.values()]

    def identity(self, token: str) -> str:
        """ "jwt:ISSUER:SUBJECT" of a token that holds now; raises Unauthenticated, without the token's text, otherwise."""
        if len(token) > MAX_BYTES:
            raise Unauthenticated(f"token: expected at most {MAX_BYTES} characters, got {len(token)}")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known.keys is known.watched.value and time.time() < known.until:
            return known.identity
        try:
            verified = self._verify(token)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("token: it has expired; ask its issuer for a new one") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated(
                "token: it is not valid yet; compare the clocks of its issuer and of this server"
            ) from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("token: it is for another audience than this server") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"token: the claim {error.claim} is missing; expected {', '.join(_CLAIMS)}") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated("token: it is malformed, or its signature does not hold") from None
        self._known.put(digest, verified)
        return verified.identity

    def _verify(self, token: str) -> _Verified:
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")  # only to find the issuer's keys
        if not isinstance(claimed, str) or claimed not in self._issuers:
            raise Unauthenticated("token: its issuer is not one that this server trusts")
        issuer, watched = self._issuers[claimed]
        keys = watched.value
        key = keys.get(header.get("kid", ""))
        if key is None:
            raise Unauthenticated(
                "token: it names no key of its issuer that this server knows; was the key rotated away?"
            )
        if header.get("alg") != key.algorithm:
            raise Unauthenticated(f"token: its key is for {key.algorithm}, the token says another algorithm")
        claims = jwt.decode(
            token,
            key.public,
            algorithms=[key.algorithm],
            audience=issuer.audience,
            issuer=issuer.name,
            leeway=issuer.leeway,
            options={"require": _CLAIMS},
        )
        _check_validity(claims, issuer)
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise Unauthenticated(f"token: expected a subject of 1 to {MAX_SUBJECT} printable characters")
        return _Verified(f"jwt:{issuer.name}:{subject}", int(claims["exp"]) + issuer.leeway, keys, watched)


def _check_validity(claims: Mapping[str, Any], issuer: Issuer) -> None:
    validity = int(claims["exp"]) - int(claims["nbf"])
    if validity > issuer.longest:
        raise Unauthenticated(
            f"token: valid for {validity} s, at most {issuer.longest:g} s are taken; ask for a shorter one"
        )


@dataclass(frozen=True)
class _Verified:
    """A token that held: until when (seconds since the epoch), and by which set of keys."""

    identity: str
    until: float
    keys: KeySet
    watched: Watched[KeySet]


class _Remembered:
    """The last tokens that held, by their SHA-256: a signature is checked once, dates and keys every time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, _Verified] = OrderedDict()

    def get(self, digest: bytes) -> _Verified | None:
        with self._lock:
            return self._tokens.get(digest)

    def put(self, digest: bytes, verified: _Verified) -> None:
        with self._lock:
            self._tokens[digest] = verified
            while len(self._tokens) > REMEMBERED:
                self._tokens.popitem(last=False)

"""Bearer tokens that no issuer signed, and other metadata of calls."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from random import Random
from typing import Any

from secure_infer_benchmarks.stress.hostile_layout import AUDIENCE, ISSUER


def token(rng: Random) -> str:
    """A bearer token that no issuer signed."""

    def part(value: object) -> str:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    now = rng.choice((0, 1 << 31, 1e400, -1, "soon", None, 1 << 70))
    header: dict[str, Any] = {
        "alg": rng.choice(("ES256", "none", "HS256", "EdDSA", 7, None)),
        "kid": rng.choice(("issuer", "", 7, [], {})),
        "typ": "JWT",
    }
    claims: dict[str, Any] = {
        "iss": rng.choice((ISSUER, "nobody", 1, None)),
        "aud": rng.choice((AUDIENCE, [], 3)),
        "sub": "x",
        "exp": now,
        "nbf": 0,
    }
    deep = rng.choice((b"[", b'{"a":')) * rng.choice((10, 900, 1500, 5000))
    parts = [part(header), part(claims), part(rng.randbytes(rng.choice((0, 64, 70))))]
    change = rng.randrange(6)
    if change == 0:
        parts[rng.randrange(2)] = part(deep[:5500])
    elif change == 1:
        parts[rng.randrange(3)] = rng.choice(("", "%%%", "=", part(b"\xff\xfe"), part([]), part("x"), "A" * 9000))
    elif change == 2:
        parts = parts[: rng.randrange(3)] + parts * rng.randrange(2)
    return ".".join(parts)


def code_of(rng: Random) -> Sequence[tuple[str, str | bytes]]:
    """One-time codes by somebody who guesses, or none. One in 300,000 of those of six digits would be right."""
    guess = f"{rng.randrange(10**6):06}"
    found = rng.choice(((), (guess,), (guess, guess), ("",), (guess[:5],), (guess * 500,), ("-00001",), ("0x1234",)))
    return tuple(("x-secure-infer-otp", code) for code in found)


def metadata_of(rng: Random, canary: bytes) -> Sequence[tuple[str, str | bytes]]:
    """Of a call: credentials that do not hold, twice or oddly, and what nobody asked for."""
    secret = canary.decode()
    return rng.choice(
        (
            (("authorization", "Bearer " + token(rng)),),
            (("authorization", "Bearer " + token(rng)), ("authorization", "Bearer " + token(rng))),
            (("authorization", f"Basic {secret}"),),
            (("authorization", f"Bearer {secret}.{secret}.{secret}"),),
            (("authorization", ""),),
            (("x-secure-infer-otp", secret[:20]),),
            (("x-secure-infer-otp", "000000"), ("authorization", "Bearer " + token(rng))),
            (("x-bin", b"hello"), ("x-note-bin", rng.randbytes(200)), ("x-note", secret)),
            (("grpc-accept-encoding", "nonsense"),),
            (("traceparent", rng.choice(("00-" + "0" * 32 + "-" + "0" * 16 + "-01", secret, "zz"))),),
            tuple((f"x-{i}", "v" * 40) for i in range(rng.choice((10, 60)))),
        )
    )

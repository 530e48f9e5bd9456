"""Tokens: each thing that must hold, broken on its own; keys rotated by file while tokens are checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from secure_infer.errors import SettingsError, Unauthenticated
from secure_infer_server.callers.authenticator import AuthenticatorSettings
from secure_infer_server.callers.keysets import read_keys
from secure_infer_server.callers.tokens import ALGORITHMS, Issuer, Tokens
from secure_infer_server.callers.watched import Watcher

from .conftest import AUDIENCE, ISSUER, claims, jwk, public_pem, write_jwks


@pytest.fixture
def jwks(tmp_path: Path, private_keys: dict[str, Any]) -> Path:
    path = tmp_path / "keys.json"
    write_jwks(path, (jwk(f"k-{name}", name, key) for name, key in private_keys.items()))
    return path


@pytest.fixture
def tokens(jwks: Path) -> Tokens:
    return Tokens([Issuer(ISSUER, AUDIENCE, jwks)])


def signed(keys: dict[str, Any], algorithm: str = "EdDSA", kid: str | None = None, **changed: Any) -> str:
    headers = {"kid": f"k-{algorithm}" if kid is None else kid}
    return jwt.encode(claims(**changed), keys[algorithm], algorithm, headers=headers)


def by_hand(header: dict[str, Any], payload: dict[str, Any], secret: bytes | None) -> str:
    """A token that no library would make; HMAC with `secret`, or no signature."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    mac = b"" if secret is None else hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_that_holds(tokens: Tokens, private_keys: dict[str, Any], algorithm: str) -> None:
    token = signed(private_keys, algorithm)
    assert tokens.identity(token) == f"jwt:{ISSUER}:anna"
    assert tokens.identity(token) == f"jwt:{ISSUER}:anna"  # the second time, remembered
    assert tokens.identity(signed(private_keys, algorithm, aud=["other", AUDIENCE])) == f"jwt:{ISSUER}:anna"


@dataclass(frozen=True)
class In:
    """A time so many seconds after the test begins, long after it was collected."""

    seconds: int


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exp": In(-60), "nbf": In(-120)}, "expired"),
        ({"nbf": In(60)}, "not valid yet"),
        ({"iss": "https://elsewhere.example"}, "issuer is not one"),
        ({"aud": "other"}, "another audience"),
        ({"exp": In(90_000)}, "at most 86400 s"),
        ({"exp": "soon"}, "malformed"),
        ({"sub": ""}, "a subject of"),
        ({"sub": "a\nb"}, "a subject of"),
        ({"sub": "a" * 257}, "a subject of"),
        ({"sub": 7}, "a subject of|malformed"),
        *(({name: None}, f"{name} is missing") for name in ("aud", "sub", "exp", "nbf")),
        ({"iss": None}, "issuer is not one"),
    ],
)
def test_each_claim_is_needed(
    tokens: Tokens, private_keys: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    now = int(time.time())
    claims = {name: now + value.seconds if isinstance(value, In) else value for name, value in changed.items()}
    with pytest.raises(Unauthenticated, match=message):
        tokens.identity(signed(private_keys, **claims))


def test_clocks_may_differ_a_little(tokens: Tokens, private_keys: dict[str, Any]) -> None:
    now = int(time.time())
    tokens.identity(signed(private_keys, exp=now - 3, nbf=now - 60))
    tokens.identity(signed(private_keys, nbf=now + 5))


def test_a_remembered_token_expires(jwks: Path, private_keys: dict[str, Any]) -> None:
    tokens = Tokens([Issuer(ISSUER, AUDIENCE, jwks, leeway=0)])
    now = int(time.time())
    token = signed(private_keys, exp=now + 2, nbf=now)
    tokens.identity(token)
    time.sleep(now + 2.05 - time.time())
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.identity(token)


def test_algorithms_are_not_the_tokens_choice(tokens: Tokens, private_keys: dict[str, Any]) -> None:
    for name, key in private_keys.items():
        header = {"typ": "JWT", "kid": f"k-{name}"}
        for secret in (public_pem(key), public_pem(key).strip()):
            with pytest.raises(Unauthenticated, match="another algorithm"):
                tokens.identity(by_hand(header | {"alg": "HS256"}, claims(), secret))
            with pytest.raises(Unauthenticated, match="does not hold"):
                tokens.identity(by_hand(header | {"alg": name}, claims(), secret))
        for none in ("none", "None", "", None):
            with pytest.raises(Unauthenticated, match=r"another algorithm|malformed"):
                tokens.identity(by_hand(header | {"alg": none}, claims(), None))
    with pytest.raises(Unauthenticated, match="another algorithm"):
        tokens.identity(jwt.encode(claims(), private_keys["RS256"], "PS256", headers={"kid": "k-RS256"}))


def test_keys_are_chosen_by_kid(tokens: Tokens, private_keys: dict[str, Any]) -> None:
    for kid in ("k-ES256x", "", "../k-EdDSA"):
        with pytest.raises(Unauthenticated, match="names no key"):
            tokens.identity(signed(private_keys, kid=kid))
    with pytest.raises(Unauthenticated, match="names no key"):
        tokens.identity(jwt.encode(claims(), private_keys["EdDSA"], "EdDSA"))
    with pytest.raises(Unauthenticated, match="malformed"):
        tokens.identity(by_hand({"alg": "EdDSA", "kid": ["k-EdDSA"]}, claims(), b""))
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unauthenticated, match="does not hold"):
        tokens.identity(signed({"EdDSA": other}))


def test_tampered(tokens: Tokens, private_keys: dict[str, Any]) -> None:
    header, _, signature = signed(private_keys).split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
    for token in (f"{header}.{other}.{signature}", f"{header}.{other}.", "", "a.b.c", "ä.b.c", "x" * 9000):
        with pytest.raises(Unauthenticated) as caught:
            tokens.identity(token)
        assert token == "" or token not in caught.value.message


def test_headers_that_ask_for_more(tokens: Tokens, private_keys: dict[str, Any]) -> None:
    headers = {"kid": "k-EdDSA", "crit": ["x"], "x": 1}
    with pytest.raises(Unauthenticated):
        tokens.identity(jwt.encode(claims(), private_keys["EdDSA"], "EdDSA", headers=headers))
    # A key that the token brings along is not looked at.
    own = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unauthenticated, match="does not hold"):
        headers = {"kid": "k-EdDSA", "jwk": jwk("k-EdDSA", "EdDSA", own)}
        tokens.identity(jwt.encode(claims(), own, "EdDSA", headers=headers))


def test_one_issuer_does_not_sign_for_another(tmp_path: Path, private_keys: dict[str, Any]) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    for name, key in (("one", private_keys["EdDSA"]), ("two", other)):
        write_jwks(tmp_path / f"{name}.json", [jwk("k", "EdDSA", key)])
    tokens = Tokens([Issuer(f"https://{name}", AUDIENCE, tmp_path / f"{name}.json") for name in ("one", "two")])
    keys = {"EdDSA": other}
    assert tokens.identity(signed(keys, kid="k", iss="https://two")) == "jwt:https://two:anna"
    with pytest.raises(Unauthenticated, match="does not hold"):
        tokens.identity(signed(keys, kid="k", iss="https://one"))


def test_an_algorithm_that_the_operator_left_out(jwks: Path, private_keys: dict[str, Any]) -> None:
    tokens = Tokens([Issuer(ISSUER, AUDIENCE, jwks, ("EdDSA",))])
    tokens.identity(signed(private_keys))
    with pytest.raises(Unauthenticated, match="names no key"):
        tokens.identity(signed(private_keys, "RS256"))


def test_rotation_by_file(tokens: Tokens, jwks: Path, private_keys: dict[str, Any], caplog: Any) -> None:
    fresh = ed25519.Ed25519PrivateKey.generate()
    old, new = signed(private_keys), signed({"EdDSA": fresh}, kid="fresh")
    (watched,) = tokens.watched
    assert not watched.refresh()
    with pytest.raises(Unauthenticated):
        tokens.identity(new)
    both = [jwk("fresh", "EdDSA", fresh), jwk("k-EdDSA", "EdDSA", private_keys["EdDSA"])]
    write_jwks(jwks, both)
    assert watched.refresh()
    assert tokens.identity(old) == tokens.identity(new)
    for wrong in ("{", '{"keys": []}', json.dumps({"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]})):
        jwks.write_text(wrong)
        caplog.clear()
        assert not watched.refresh()
        assert not watched.refresh()
        assert len(caplog.records) == 1  # once, and the old keys stay
        assert tokens.identity(old) == tokens.identity(new)
    write_jwks(jwks, both[:1])
    assert watched.refresh()
    tokens.identity(new)
    with pytest.raises(Unauthenticated, match="rotated away"):
        tokens.identity(old)  # although it had held, and was remembered


def test_rotation_under_load(tokens: Tokens, jwks: Path, private_keys: dict[str, Any]) -> None:
    """Tokens of a key that is in every version of the file hold at every moment."""
    stays = signed(private_keys)
    failures: list[Exception] = []
    ending = threading.Event()

    def ask() -> None:
        while not ending.is_set():
            try:
                tokens.identity(stays)
            except Exception as error:
                failures.append(error)
                return

    watcher = Watcher(tokens.watched, interval=0.001)
    askers = [threading.Thread(target=ask) for _ in range(3)]
    watcher.start()
    for asker in askers:
        asker.start()
    seen = set()
    for number in range(60):
        more = ed25519.Ed25519PrivateKey.generate()
        write_jwks(jwks, [jwk("k-EdDSA", "EdDSA", private_keys["EdDSA"]), jwk(f"n{number}", "EdDSA", more)])
        time.sleep(0.004)
        seen.add(id(tokens.watched[0].value))
    ending.set()
    for asker in askers:
        asker.join()
    watcher.close()
    tokens.watched[0].refresh()  # the last file may have come after the watcher's last look
    assert not failures
    assert len(seen) > 5
    assert tokens.identity(signed({"EdDSA": more}, kid="n59"))


def test_keys_from_pem(tmp_path: Path, private_keys: dict[str, Any]) -> None:
    directory = tmp_path / "keys"
    directory.mkdir()
    for name, key in private_keys.items():
        (directory / f"k-{name}.pem").write_bytes(public_pem(key))
    tokens = Tokens([Issuer(ISSUER, AUDIENCE, directory)])
    for name in ALGORITHMS:
        tokens.identity(signed(private_keys, name))
    (directory / "k-RS256.pem").unlink()
    assert tokens.watched[0].refresh()
    with pytest.raises(Unauthenticated, match="names no key"):
        tokens.identity(signed(private_keys, "RS256"))
    single = Tokens([Issuer(ISSUER, AUDIENCE, directory / "k-EdDSA.pem")])
    single.identity(signed(private_keys))


def test_keys_that_are_not_taken(tmp_path: Path, private_keys: dict[str, Any], caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    secret = private_keys["EdDSA"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    weak, p384 = rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())
    pem = tmp_path / "k.pem"
    for data, message in (
        (secret, "private key"),
        (b"-----BEGIN X-----", "not a public key"),
        (public_pem(weak), "expected Ed25519"),
        (public_pem(p384), "expected Ed25519"),
        (b"x" * (1 << 20) + b"y", "larger than"),
    ):
        pem.write_bytes(data)
        with pytest.raises(SettingsError, match=message):
            read_keys(pem, ALGORITHMS)
    path = tmp_path / "k.json"
    good = jwk("a", "EdDSA", private_keys["EdDSA"])
    for entries, message in (
        ([good, good], "second time"),
        ([{**good, "d": "AA"}], "secret"),
        ([{**good, "kid": 3}], "without a kid"),
        ([{**good, "use": "enc"}], "no public key"),
        ([{**good, "alg": "ES256"}], "no public key"),
        ([jwk("a", "ES384", p384)], "no public key"),
        ([jwk("a", "RS256", weak)], "no public key"),
    ):
        write_jwks(path, entries)
        with pytest.raises(SettingsError, match=message):
            read_keys(path, ALGORITHMS)
    # What a provider keeps besides is left out.
    write_jwks(path, [good, jwk("b", "ES384", p384), {"kid": "c", "kty": "NEW"}])
    assert set(read_keys(path, ALGORITHMS)) == {"a"}
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_keys(missing / "x", ALGORITHMS)


def test_settings(jwks: Path) -> None:
    for arguments, message in (
        ({"algorithms": ("HS256",)}, "HS256"),
        ({"algorithms": ("none",)}, "none"),
        ({"algorithms": ()}, "none"),
        ({"name": ""}, "empty"),
        ({"leeway": 600}, "leeway"),
        ({"longest": 1e9}, "longest"),
    ):
        with pytest.raises(SettingsError, match=message):
            Issuer(**({"name": ISSUER, "audience": AUDIENCE, "keys": jwks} | arguments))
    for names in (("https://a", "https://a:8443"), ("https://a", "https://a")):
        with pytest.raises(SettingsError, match="share identities"):
            AuthenticatorSettings(tuple(Issuer(name, AUDIENCE, jwks) for name in names))
    AuthenticatorSettings(tuple(Issuer(name, AUDIENCE, jwks) for name in ("https://a", "https://ab")))

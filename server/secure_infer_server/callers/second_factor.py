"""The second factor of administrative calls: time-based one-time codes (TOTP, RFC 6238) in 30-second steps.

A code is taken once. One step before and one after the present are tried too, for clocks that differ; after one was taken, it
and everything before it is not. What was taken before a start of the server is not known, so nothing up to then is: after a
restart, an operator waits for at most a minute. Wrong codes lock an identity out, longer each time: guessing on gets about
45 tries in the first day and at most 10 in each that follows, against three codes in a million.
"""

from __future__ import annotations

import binascii
import hmac
import os
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyotp

from secure_infer.errors import SecondFactorNeeded, SettingsError
from secure_infer_server.callers.watched import Watched

STEP_SECONDS = 30
LEAST_BYTES = 16  # RFC 4226, section 4, R6
_HOW = 'send the present code as metadata "x-secure-infer-otp"'


@dataclass(frozen=True)
class SecondFactorSettings:
    """secrets: a TOML file of `"IDENTITY" = "BASE32"`, readable by its owner alone. attempts: wrong codes in a row until an
    identity is locked out. lockout: for how many seconds the first time; each further one doubles, up to a day."""

    secrets: Path
    attempts: int = 5
    lockout: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 20:
            raise SettingsError(f"second factor: expected 1 to 20 attempts, got {self.attempts}")
        if not 30 <= self.lockout <= 86_400:
            raise SettingsError(f"second factor: expected a lock-out of 30 seconds to a day, got {self.lockout:g}")


@dataclass
class _Standing:
    """One identity's: the last step of which a code was taken, wrong codes in a row, lock-outs in a row, and until when."""

    taken: int
    wrong: int = 0
    lockouts: int = 0
    until: float = 0.0


class SecondFactor:
    """Checks one-time codes. Thread-safe. What it remembers is of this process: a code could be taken once by each of several."""

    def __init__(self, settings: SecondFactorSettings, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since the epoch. Raises SettingsError for a file that others can read, or secrets too short."""
        self._settings, self._clock = settings, clock
        self._secrets = Watched(
            "one-time code secrets", lambda: read_secrets(settings.secrets), lambda: [settings.secrets]
        )
        self._from = self._step() + 1
        self._lock = threading.Lock()
        self._standing: dict[str, _Standing] = {}

    @property
    def watched(self) -> Watched[Mapping[str, pyotp.TOTP]]:
        return self._secrets

    @property
    def enrolled(self) -> frozenset[str]:
        """Identities that have a secret."""
        return frozenset(self._secrets.value)

    def require(self, identity: str, code: str) -> None:
        """Take the code; raises SecondFactorNeeded, with `seconds` to wait where that is what helps, when it does not hold."""
        totp = self._secrets.value.get(identity)
        if totp is None:
            raise SecondFactorNeeded(
                "second factor: this identity has none; its operator enrols it in the file of secrets"
            )
        if not code:
            raise SecondFactorNeeded(f"second factor: this call needs one; {_HOW}")
        with self._lock:
            standing = self._standing.setdefault(identity, _Standing(self._from))
            self._require_unlocked(standing)
            step = self._matching(totp, code)
            if step is None:
                self._count(standing)
                raise SecondFactorNeeded(
                    "second factor: the code is wrong, or of another time; are both clocks right to half a minute?"
                )
            if step <= standing.taken:
                wait = (standing.taken + 1) * STEP_SECONDS - self._clock()
                raise SecondFactorNeeded(
                    "second factor: a code is taken once, and none from before the server's start; wait for the next",
                    seconds=max(1, round(wait)),
                )
            standing.taken, standing.wrong, standing.lockouts = step, 0, 0

    def _require_unlocked(self, standing: _Standing) -> None:
        left = standing.until - self._clock()
        if left > 0:
            seconds = max(1, round(left))
            raise SecondFactorNeeded(
                f"second factor: too many wrong codes; locked out for {seconds} seconds", seconds=seconds
            )

    def _count(self, standing: _Standing) -> None:
        standing.wrong += 1
        if standing.wrong >= self._settings.attempts:
            standing.until = self._clock() + min(self._settings.lockout * 2.0**standing.lockouts, 86_400.0)
            standing.wrong = 0
            standing.lockouts = min(standing.lockouts + 1, 30)

    def _matching(self, totp: pyotp.TOTP, code: str) -> int | None:
        """The step whose code that is. All three are compared, whichever it is, in constant time."""
        now, given, found = self._step(), code.encode(), None
        for step in (now - 1, now, now + 1):
            if hmac.compare_digest(totp.generate_otp(step).encode(), given):
                found = step
        return found

    def _step(self) -> int:
        return int(self._clock()) // STEP_SECONDS


def read_secrets(path: Path) -> Mapping[str, pyotp.TOTP]:
    """By identity. No message holds any of what is in the file."""
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise SettingsError(f"second factor: {path} is open to others; chmod 600 it, and replace its secrets")
            entries = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"second factor: {path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise SettingsError(f'second factor: {path} is not TOML of the form "IDENTITY" = "BASE32"') from None
    return {identity: _totp(path, identity, secret) for identity, secret in entries.items()}


def _totp(path: Path, identity: str, secret: object) -> pyotp.TOTP:
    try:
        totp = pyotp.TOTP(secret if isinstance(secret, str) else "")
        size = len(totp.byte_secret())
    except (binascii.Error, ValueError):
        size = 0
    if size < LEAST_BYTES:
        raise SettingsError(
            f"second factor: {path}: {identity}: expected a base32 secret of {LEAST_BYTES} bytes or more"
        )
    return totp

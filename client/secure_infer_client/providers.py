"""Where the key of a key ring comes from when it is no passphrase: a file, the system's keyring, or a provider of one's own.

KeyRing("ring", provider=KeyFile("/etc/secure-infer/ring.key"))
KeyRing("ring", provider=KeyFile.credential("ring"))    # of a systemd unit with LoadCredentialEncrypted=ring:...
KeyRing("ring", provider=OsKeyring())                   # pip install 'secure-infer[keyring]'
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from secure_infer.errors import MissingExtra, SettingsError
from secure_infer_client import locks
from secure_infer_client.sealed import KEY_BYTES


class KeyProvider(Protocol):
    """What a provider has: a key that nobody else gets, the same each time."""

    def key(self) -> bytes:
        """32 bytes that cannot be guessed; raises SettingsError."""


@runtime_checkable
class RemembersGeneration(Protocol):
    """A provider that keeps a number as well, apart from the file: with it, an older file that is put back is noticed."""

    def remember(self, generation: int) -> None:
        """Called after each write."""

    def remembered(self) -> int:
        """The latest; 0 for none."""


class KeyFile:
    """A key in a file of 32 random bytes that this user alone may read: `(umask 077; head -c 32 /dev/urandom > FILE)`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    @classmethod
    def credential(cls, name: str) -> KeyFile:
        """The credential of that name which systemd gave this service (`LoadCredential=`, `LoadCredentialEncrypted=`)."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None or Path(name).name != name:
            raise SettingsError(
                f"credential {name!r}: expected a name in CREDENTIALS_DIRECTORY, which systemd sets for a unit"
            )
        return cls(Path(directory) / name)

    def key(self) -> bytes:
        try:
            with self._path.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                data = opened.read(KEY_BYTES + 1)
        except OSError as error:
            raise SettingsError(f"key file {self._path}: cannot be read ({error.strerror})") from error
        if os.name == "posix" and mode & 0o077:
            raise SettingsError(f"key file {self._path}: others may read it; chmod 600 {self._path}")
        if len(data) != KEY_BYTES:
            raise SettingsError(f"key file {self._path}: expected {KEY_BYTES} random bytes, got another number")
        return data


class OsKeyring:
    """A key in the keyring of the user's session (Secret Service, KWallet, macOS Keychain), by the package `keyring`; made
    there when it is first asked for. The ring's generation is kept there too.

    name: of the entry; rings with keys of their own have names of their own.
    """

    SERVICE = "secure-infer"

    def __init__(self, name: str = "key ring") -> None:
        try:
            import keyring
            from keyring import errors
        except ModuleNotFoundError:
            raise MissingExtra(
                "keyring is not installed; install it with: pip install 'secure-infer[keyring]'", extra="keyring"
            ) from None
        self._name = name
        self._keyring: Any = keyring
        self._error: type[Exception] = errors.KeyringError

    def key(self) -> bytes:
        held = self._get(self._name) or self._made()
        try:
            return bytes.fromhex(held)
        except ValueError:
            raise SettingsError(f"the system's keyring: entry {self._name!r} of {self.SERVICE} is no key") from None

    def _made(self) -> str:
        """One key, also where several processes ask for the first time at once: the keyring itself has no such step."""
        try:
            place = Path.home() / ".cache" / "secure-infer" / "keyring.lock"
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except (OSError, RuntimeError) as error:  # or no home at all
            raise SettingsError(
                f"the system's keyring: a new key takes a lock in the user's ~/.cache, which cannot be had ({error})"
            ) from error
        try:
            locks.take(lock, wait=True)
            held = self._get(self._name)
            if held is None:
                held = secrets.token_hex(KEY_BYTES)
                self._set(self._name, held)
            return held
        finally:
            os.close(lock)

    def remember(self, generation: int) -> None:
        self._set(f"{self._name}, generation", str(generation))

    def remembered(self) -> int:
        held = self._get(f"{self._name}, generation") or "0"
        return int(held) if held.isdigit() else 0

    def _get(self, name: str) -> str | None:
        try:
            held: str | None = self._keyring.get_password(self.SERVICE, name)
            return held
        except self._error as error:
            raise self._unusable(error) from None

    def _set(self, name: str, value: str) -> None:
        try:
            self._keyring.set_password(self.SERVICE, name, value)
        except self._error as error:
            raise self._unusable(error) from None

    @staticmethod
    def _unusable(error: Exception) -> SettingsError:
        return SettingsError(
            f"the system's keyring cannot be used ({type(error).__name__}): it takes an unlocked session with a keyring service. "
            "Where there is none, take a key file, a systemd credential or a passphrase"
        )

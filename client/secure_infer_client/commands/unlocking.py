"""How commands are told what opens a key ring: a passphrase or a key, never on the command line."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer_client.keyring import KeyRing
from secure_infer_client.providers import KeyFile, KeyProvider, OsKeyring

PASSPHRASE = "SECURE_INFER_KEY_RING_PASSPHRASE"  # noqa: S105 (a variable's name)
OS_KEYRING, CREDENTIAL = "os", "credential:"


def add_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--key-ring",
        type=Path,
        required=required,
        metavar="F",
        help="keeps this client's keys, encrypted, from one run to the next",
    )
    parser.add_argument(
        "--key-ring-passphrase-file",
        type=Path,
        metavar="F",
        help=f"file with its passphrase; else the variable {PASSPHRASE}, else the terminal is asked",
    )
    parser.add_argument(
        "--key-ring-key",
        metavar="F",
        help=f"instead of a passphrase: a file of 32 random bytes, {CREDENTIAL}NAME of systemd, or {OS_KEYRING!r} for the "
        "operating system's keyring",
    )


def ring(options: argparse.Namespace) -> KeyRing | None:
    """The ring that the options name, or None. Raises SettingsError; nothing is opened yet."""
    path: Path | None = options.key_ring
    if path is None:
        return None
    passphrase, provider = given(
        options.key_ring_passphrase_file,
        options.key_ring_key,
        os.environ.get(PASSPHRASE),
        f"passphrase of {path}",
        new=not path.exists(),
    )
    return KeyRing(path, passphrase=passphrase, provider=provider)


def given(
    file: Path | None, key: str | None, variable: str | None, what: str, *, new: bool
) -> tuple[str | None, KeyProvider | None]:
    """A passphrase or a provider. variable: an environment variable's value. what: as the terminal asks; twice, when new."""
    if file is not None and key is not None:
        raise SettingsError(f"{what}: expected a passphrase file or a key, got both")
    if key is not None:
        if key == OS_KEYRING:
            return None, OsKeyring()
        if key.startswith(CREDENTIAL):
            return None, KeyFile.credential(key.removeprefix(CREDENTIAL))
        return None, KeyFile(key)
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n"), None
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{what}: {file} cannot be read as text") from None
    if variable is not None:
        return variable, None
    if not sys.stdin.isatty():
        raise SettingsError(
            f"{what}: give a passphrase file, a key or the variable {PASSPHRASE}; there is no terminal to ask"
        )
    asked = getpass.getpass(f"{what}: ")
    if new and getpass.getpass("once more: ") != asked:
        raise SettingsError(f"{what}: the two differ")
    return asked, None

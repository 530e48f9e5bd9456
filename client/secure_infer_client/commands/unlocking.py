"""How commands are told what opens a key ring, or another encrypted file: a passphrase or a key, never on the command line."""

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
        f"passphrase of {path}",
        prefix="--key-ring",
        variable=PASSPHRASE,
        new=not path.exists(),
    )
    return KeyRing(path, passphrase=passphrase, provider=provider)


def given(
    file: Path | None,
    key: str | None,
    what: str,
    *,
    prefix: str,
    variable: str | None,
    new: bool,
    entry: str = "key ring",
) -> tuple[str | None, KeyProvider | None]:
    """A passphrase or a provider. what: as the terminal asks; twice, when new. prefix: of the options `-passphrase-file` and
    `-key`, whose values `file` and `key` are. variable: the environment's, by name. entry: of the system's keyring."""
    if file is not None and key is not None:
        raise SettingsError(f"{prefix}-passphrase-file and {prefix}-key: expected one of them, got both")
    if key is not None:
        if key == OS_KEYRING:
            return None, OsKeyring(entry)
        if key.startswith(CREDENTIAL):
            return None, KeyFile.credential(key.removeprefix(CREDENTIAL))
        return None, KeyFile(key)
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n"), None
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{prefix}-passphrase-file: {file} cannot be read as text") from None
    if variable is not None and variable in os.environ:
        return os.environ[variable], None
    if not sys.stdin.isatty():
        ways = [f"{prefix}-passphrase-file", f"{prefix}-key", *([f"the variable {variable}"] if variable else [])]
        raise SettingsError(f"{what}: give {' or '.join(ways)}; there is no terminal to ask")
    asked = getpass.getpass(f"{what}: ")
    if new and getpass.getpass("once more: ") != asked:
        raise SettingsError(f"{what}: the two differ")
    return asked, None

"""Options of a client's own record, and how its passphrase is given."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer_client.providers import KeyFile, OsKeyring
from secure_infer_client.record import Record
from secure_infer_client.record.record import IDS, file_key
from secure_infer_client.sealed import Secret

PASSPHRASE = "SECURE_INFER_RECORD_PASSPHRASE"  # noqa: S105 (a variable's name)
OS_KEYRING = "os"


def add_key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--record-passphrase-file",
        type=Path,
        metavar="F",
        help=f"file with the record's passphrase; else the variable {PASSPHRASE}, else the terminal is asked",
    )
    parser.add_argument(
        "--record-key",
        metavar="F",
        help=f"instead of a passphrase: a file of 32 random bytes, or {OS_KEYRING!r} for the operating system's keyring",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of a command whose calls may be recorded."""
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep an encrypted record of what was scored when")
    parser.add_argument("--operator", metavar="NAME", help="who scores, as the record's readers will see it")
    parser.add_argument(
        "--record-ids",
        choices=IDS,
        default="hashed",
        help="how rows' ids are kept: hashed under the file's key, or plain",
    )
    parser.add_argument("--record-answers", action="store_true", help="keep labels as well")
    add_key_options(parser)


def opened(options: argparse.Namespace) -> AbstractContextManager[Record | None]:
    """The record that the options ask for, or none; raises SettingsError and CannotUnlock."""
    if options.record is None:
        return nullcontext()
    if options.operator is None:
        raise SettingsError("--record: give --operator NAME as well, who scores as the record's readers will see it")
    passphrase, provider = _given(options, new=not options.record.exists())
    return Record(
        options.record,
        passphrase,
        provider=provider,
        operator=options.operator,
        ids=options.record_ids,
        answers=options.record_answers,
    )


def key(options: argparse.Namespace) -> Secret:
    """The key of a record that is there."""
    return file_key(*_given(options, new=False))


def _given(options: argparse.Namespace, *, new: bool) -> tuple[str | None, KeyFile | OsKeyring | None]:
    if options.record_key is not None:
        if options.record_passphrase_file is not None:
            raise SettingsError("--record-key and --record-passphrase-file: expected one of them")
        return None, OsKeyring("record") if options.record_key == OS_KEYRING else KeyFile(options.record_key)
    if options.record_passphrase_file is not None:
        try:
            return options.record_passphrase_file.read_text(encoding="utf-8").rstrip("\r\n"), None
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"--record-passphrase-file: {options.record_passphrase_file} cannot be read") from None
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE], None
    if not sys.stdin.isatty():
        raise SettingsError(f"record: give --record-passphrase-file, --record-key or the variable {PASSPHRASE}")
    asked = getpass.getpass("passphrase of the record: ")
    if new and getpass.getpass("once more: ") != asked:
        raise SettingsError("record: the passphrases differ")
    return asked, None

"""Options of a client's own record, and how its passphrase is given."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer_client.commands import unlocking
from secure_infer_client.commands.unlocking import CREDENTIAL, OS_KEYRING
from secure_infer_client.providers import KeyProvider
from secure_infer_client.record import Record
from secure_infer_client.record.record import IDS, file_key
from secure_infer_client.sealed import Secret

PASSPHRASE = "SECURE_INFER_RECORD_PASSPHRASE"  # noqa: S105 (a variable's name)


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
        help=f"instead of a passphrase: a file of 32 random bytes, {CREDENTIAL}NAME of systemd, or {OS_KEYRING!r} for the "
        "operating system's keyring",
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


def _given(options: argparse.Namespace, *, new: bool) -> tuple[str | None, KeyProvider | None]:
    return unlocking.given(
        options.record_passphrase_file,
        options.record_key,
        "passphrase of the record",
        prefix="--record",
        variable=PASSPHRASE,
        new=new,
        entry="record",
    )

"""Options that every command of a client takes, and the client they make."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from secure_infer.ckks.plan import Privacy
from secure_infer.errors import SettingsError
from secure_infer_client.batches import Progress
from secure_infer_client.client import Client
from secure_infer_client.commands import unlocking
from secure_infer_client.record import Record
from secure_infer_client.schemes import SCHEMES


def add_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """required: whether target and model have to be given."""
    parser.add_argument(
        "--target",
        required=required,
        action="append",
        metavar="HOST:PORT",
        help="the server; with --scheme mpc give it twice, once for each party",
    )
    parser.add_argument(
        "--scheme", choices=SCHEMES, default="ckks", help="ckks: encrypted, one server; mpc: shared between two parties"
    )
    parser.add_argument("--model", required=required, metavar="NAME", help="the model's name on the server")
    parser.add_argument(
        "--privacy", choices=list(Privacy), help="ask for this level; less than the operator's is refused"
    )
    parser.add_argument(
        "--root-certificates", type=Path, metavar="F", help="CA that signed the server's certificate, PEM"
    )
    parser.add_argument("--private-key", type=Path, metavar="F", help="this client's key for mutual TLS, PEM")
    parser.add_argument(
        "--certificate-chain", type=Path, metavar="F", help="this client's certificate for mutual TLS, PEM"
    )
    parser.add_argument("--token-file", type=Path, metavar="F", help="file with a bearer token, sent over TLS only")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="deadline of every call (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    unlocking.add_options(parser)


def help_alone(arguments: list[str]) -> list[str]:
    """Only the wish for help, where there is one: an option before it may lack its value (`plan --target --help`)."""
    return ["--help"] if {"-h", "--help"} & set(arguments) else arguments


def token(options: argparse.Namespace) -> str | None:
    """The bearer token of `--token-file`, where there is one."""
    file: Path | None = options.token_file
    try:
        return None if file is None else file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"--token-file: {file} cannot be read ({error.strerror})") from error


def client(
    options: argparse.Namespace, *, deidentify: bool = True, long_text: str = "pool", record: Record | None = None
) -> Client:
    return Client(
        options.target,
        model=options.model,
        scheme=options.scheme,
        privacy=options.privacy,
        root_certificates=options.root_certificates,
        private_key=options.private_key,
        certificate_chain=options.certificate_chain,
        token=token(options),
        timeout=options.timeout,
        deidentify=deidentify,
        long_text=long_text,
        record=record,
        key_ring=unlocking.ring(options),
    )


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal, moved by the part that is done."""
    shape = "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc=description, bar_format=shape, leave=False, disable=None) as bar:

        def reached(done: float) -> None:
            bar.update(done - bar.n)

        yield reached


def show(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")

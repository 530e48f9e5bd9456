"""`secure-infer sign-model`: sign a model, so that servers with --model-signers serve it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer.heads import Head
from secure_infer.mpc import sharefile
from secure_infer_server import ed25519
from secure_infer_server.models.signatures import MAX_SERIAL, Signature, signature_of

_WHAT = "model signing key"


def run(arguments: list[str]) -> int:
    """Write FILE.sig beside FILE; prints what was signed."""
    parser = argparse.ArgumentParser("secure-infer sign-model", description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE", help="a .head, or one half of it, a .share")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="KEY.pem", help="Ed25519 private key, readable by its owner alone"
    )
    parser.add_argument(
        "--new-key", action="store_true", help="make the key first, and its public half for --model-signers beside it"
    )
    parser.add_argument(
        "--serial",
        type=int,
        metavar="N",
        help="servers take no signature with a lower serial after this one; default milliseconds since 1970, now",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    serial = int(1000 * time.time()) if options.serial is None else options.serial
    if not 0 < serial < MAX_SERIAL:
        raise SettingsError(f"--serial: expected 1 to 2^53 - 1, got {serial}")
    shared = options.model.suffix == sharefile.SUFFIX
    digest = sharefile.load(options.model).spec.digest if shared else Head.load(options.model).digest
    public = _new_key(options.key) if options.new_key else None
    signature = Signature.make(ed25519.private(options.key, _WHAT), options.model.stem, digest, serial)
    target = signature_of(options.model)
    try:
        signature.write(target)
    except OSError as error:
        raise SettingsError(f"{target} cannot be written ({error.strerror})") from error
    facts = {
        "file": str(target),
        "model": signature.model,
        "digest": digest,
        "serial": serial,
        "key": signature.key,
        "public_key": None if public is None else str(public),
    }
    if options.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    sys.stdout.write(f"{target}: model {signature.model!r}, digest {digest[:12]}…, by key {signature.key}\n")
    if public is not None:
        sys.stdout.write(f"{public}: give it to servers as --model-signers; keep {options.key} where no server is\n")
    return 0


def _new_key(path: Path) -> Path:
    """Make the pair; returns where the public half is: KEY.pub.pem."""
    public = path.with_suffix(".pub.pem")
    if public.exists():
        raise SettingsError(f"{_WHAT}: {public} is there already; nothing was overwritten")
    ed25519.make(path, _WHAT)
    public.write_bytes(ed25519.pem(ed25519.private(path, _WHAT).public_key()))
    return public

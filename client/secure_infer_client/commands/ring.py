"""`secure-infer keys`: a client's key ring. `list` shows what is in it; `rotate` makes new keys and has servers delete the old
ones; `delete` forgets entries; `new-passphrase` encrypts the ring anew."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secure_infer.errors import SecureInferError, SettingsError
from secure_infer_client.client import Client
from secure_infer_client.commands import connection, unlocking
from secure_infer_client.keyring import KeyRing
from secure_infer_client.ringstate import Name


def run(arguments: list[str]) -> int:
    """Returns 0, or 1 where a server could not be asked to delete its part."""
    parser = argparse.ArgumentParser("secure-infer keys", description=__doc__)
    parser.add_argument("action", choices=["list", "rotate", "delete", "new-passphrase"])
    connection.add_options(parser, required=False)
    parser.add_argument(
        "--all",
        action="store_true",
        help="delete: every entry, also of a ring that does not open; servers are then not asked",
    )
    parser.add_argument("--local", action="store_true", help="delete: do not ask the server to delete its part")
    parser.add_argument(
        "--new-passphrase-file", type=Path, metavar="F", help="new-passphrase: file with it; else the terminal is asked"
    )
    parser.add_argument("--new-key", metavar="F", help="new-passphrase: a key instead, as --key-ring-key")
    options = parser.parse_args(connection.help_alone(arguments))
    ring = unlocking.ring(options)
    if ring is None:
        raise SettingsError("--key-ring: expected the ring's file")
    if options.action == "delete" and options.all:
        ring.begin_anew()
        return _show(options, [], [f"{ring.path}: empty"])
    if not ring.path.exists():
        raise SettingsError(f"--key-ring: {ring.path} is not there; the first client with it makes it")
    with ring:
        if options.action == "new-passphrase":
            passphrase, provider = unlocking.given(
                options.new_passphrase_file,
                options.new_key,
                f"new passphrase of {ring.path}",
                prefix="--new",
                variable=None,
                new=True,
            )
            ring.change_secret(passphrase=passphrase, provider=provider)
            return _show(options, [], [f"{ring.path}: encrypted anew; copies of the old file still open as before"])
        names = _chosen(ring, options)
        if options.action == "list":
            facts = [ring.facts(name) for name in names]
            return _show(options, facts, [_line(each) for each in facts] or [f"{ring.path}: no entries"])
        done = [_changed(ring, name, options) for name in names]
        return _show(options, done, [_outcome(each) for each in done])


def _chosen(ring: KeyRing, options: argparse.Namespace) -> list[Name]:
    """The entries that --target and --model name, or all; raises SettingsError for names without any."""
    names = ring.names()
    if options.target is not None:
        names = [name for name in names if name.targets == tuple(options.target)]
    if options.model is not None:
        names = [name for name in names if name.model == options.model]
    asked = options.target is not None or options.model is not None
    if asked and not names:
        raise SettingsError(
            f"{ring.path}: no entry of that target and model; `secure-infer keys list` shows those there are"
        )
    if options.action == "delete" and not asked:
        raise SettingsError("delete: say which, by --target and --model, or --all")
    return names


def _changed(ring: KeyRing, name: Name, options: argparse.Namespace) -> dict[str, Any]:
    """`rotate` or `delete` of one entry. What is here is done in any case; `problem` says what the server did not."""
    renew = options.action == "rotate"
    done: dict[str, Any] = {"target": list(name.targets), "model": name.model, "action": options.action, "deleted": 0}
    if renew or not options.local:
        try:
            with Client(
                name.targets,
                model=name.model,
                scheme=name.scheme,
                root_certificates=options.root_certificates,
                private_key=options.private_key,
                certificate_chain=options.certificate_chain,
                token=connection.token(options),
                timeout=options.timeout,
                key_ring=ring,
            ) as client:
                done["deleted"] = client.rotate_keys(renew=renew)
        except SettingsError:
            raise
        except SecureInferError as problem:
            done["problem"] = problem.message
    if not renew:
        ring.delete(name)
    return done


def _show(options: argparse.Namespace, entries: list[dict[str, Any]], lines: list[str]) -> int:
    failed = any("problem" in entry for entry in entries)
    if options.json:
        lines = [json.dumps({"key_ring": str(options.key_ring), "action": options.action, "entries": entries})]
    connection.show(lines)
    return 1 if failed else 0


def _line(facts: dict[str, Any]) -> str:
    rings = [f"N={key['ring'].partition(':')[0]} of {_day(key['created'])}" for key in facts["keys"]]
    parts = [
        f"keys {', '.join(rings) or 'none'}",
        f"{facts['uploaded']} uploaded",
        *[f"{facts['retired']} to be deleted on the server"] * bool(facts["retired"]),
        *[f"{facts['refusals']} refused answers"] * bool(facts["refusals"]),
    ]
    return f"{facts['model']} at {' and '.join(facts['targets'])}: {'; '.join(parts)}"


def _outcome(done: dict[str, Any]) -> str:
    what = "new keys" if done["action"] == "rotate" else "forgotten"
    told = (
        f"; not done on the server: {done['problem']}"
        if "problem" in done
        else f"; {done['deleted']} deleted on the server"
    )
    return f"{done['model']} at {' and '.join(done['target'])}: {what}{told}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
